//! `device`, `management`: what fences a host, and the network over which it is asked.

use super::super::words::Words;
use super::{Act, Verb};

pub(super) const VERBS: [Verb; 2] = [
    Verb { name: "device", usage: "device HOSTS stubborn|obedient", read: device },
    Verb { name: "management", usage: "management cut|heal HOSTS -> HOSTS", read: management },
];

/// A stubborn processor says that it takes the order, and doesn't carry it out.
fn device(words: &mut Words<'_>) -> Result<Act, String> {
    let hosts = words.hosts()?;
    let is_stubborn = match words.next()? {
        "stubborn" => true,
        "obedient" => false,
        other => return Err(format!("{other:?} is neither stubborn nor obedient")),
    };
    Ok(Box::new(move |stage| {
        for host in &hosts {
            if is_stubborn {
                stage.world.fences.stubborn.insert(host.clone());
            } else {
                stage.world.fences.stubborn.remove(host);
            }
        }
        Ok(())
    }))
}

fn management(words: &mut Words<'_>) -> Result<Act, String> {
    let is_cut = match words.next()? {
        "cut" => true,
        "heal" => false,
        other => return Err(format!("{other:?} is neither cut nor heal")),
    };
    let from = words.hosts()?;
    words.must("->")?;
    let to = words.hosts()?;
    Ok(Box::new(move |stage| {
        for executor in &from {
            for target in &to {
                let pair = (executor.clone(), target.clone());
                if is_cut {
                    stage.world.fences.cut.insert(pair);
                } else {
                    stage.world.fences.cut.remove(&pair);
                }
            }
        }
        Ok(())
    }))
}
