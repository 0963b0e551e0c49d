//! `cut`, `heal`, `link`: the network, for each direction by itself.

use super::super::words::Words;
use super::{Act, Verb};
use crate::sim::Link;
use quorum::id::HostName;

pub(super) const VERBS: [Verb; 4] = [
    Verb { name: "cut", usage: "cut HOSTS ->|<-> HOSTS|rest", read: |words| wire(words, true) },
    Verb { name: "heal", usage: "heal HOSTS ->|<-> HOSTS|rest", read: |words| wire(words, false) },
    Verb {
        name: "link",
        usage: "link HOSTS ->|<-> HOSTS|rest [delay SPAN] [jitter SPAN] [loss PERCENT] [twice PERCENT] [stray PERCENT SPAN] [narrow|wide]",
        read: link,
    },
    Verb { name: "handshakes", usage: "handshakes fail|work", read: handshakes },
];

type Pairs = Vec<(HostName, HostName)>;

/// Every direction that the words name.
fn pairs(words: &mut Words<'_>) -> Result<Pairs, String> {
    let from = words.hosts()?;
    let both = match words.next()? {
        "->" => false,
        "<->" => true,
        other => return Err(format!("{other:?} is no direction; write -> or <->")),
    };
    let to = if words.took("rest") {
        words.cast.hosts.keys().filter(|host| !from.contains(host)).cloned().collect()
    } else {
        words.hosts()?
    };
    let mut pairs = Pairs::new();
    for from in &from {
        for to in to.iter().filter(|to| *to != from) {
            pairs.push((from.clone(), to.clone()));
            if both {
                pairs.push((to.clone(), from.clone()));
            }
        }
    }
    Ok(pairs)
}

fn wire(words: &mut Words<'_>, is_cut: bool) -> Result<Act, String> {
    let pairs = pairs(words)?;
    Ok(Box::new(move |stage| {
        for (from, to) in &pairs {
            stage.world.cut(from, to, is_cut);
        }
        Ok(())
    }))
}

/// Changes one property of a link.
type Shape = Box<dyn Fn(&mut Link)>;

fn link(words: &mut Words<'_>) -> Result<Act, String> {
    let pairs = pairs(words)?;
    let mut shapes: Vec<Shape> = Vec::new();
    while !words.is_over() {
        shapes.push(shape(words)?);
    }
    Ok(Box::new(move |stage| {
        for (from, to) in &pairs {
            stage.world.shape(from, to, |link| shapes.iter().for_each(|shape| shape(link)));
        }
        Ok(())
    }))
}

fn shape(words: &mut Words<'_>) -> Result<Shape, String> {
    Ok(match words.next()? {
        "delay" => {
            let delay = words.span()?;
            Box::new(move |link| link.delay = delay)
        }
        "jitter" => {
            let jitter = words.span()?;
            Box::new(move |link| link.jitter = jitter)
        }
        "loss" => {
            let share = per_mille(words)?;
            Box::new(move |link| link.loss_per_mille = share)
        }
        "twice" => {
            let share = per_mille(words)?;
            Box::new(move |link| link.twice_per_mille = share)
        }
        "stray" => {
            let (share, after) = (per_mille(words)?, words.span()?);
            Box::new(move |link| (link.stray_per_mille, link.stray_after) = (share, after))
        }
        "narrow" => Box::new(|link| link.is_narrow = true),
        "wide" => Box::new(|link| link.is_narrow = false),
        other => return Err(format!("{other:?} is no property of a link")),
    })
}

fn per_mille(words: &mut Words<'_>) -> Result<u64, String> {
    let percent = u64::try_from(words.number()?).ok().filter(|percent| *percent < 100);
    Ok(percent.ok_or("a share is 0 to 99 percent; for all of it write `cut`")? * 10)
}

/// Connections that are up stay so; new ones fail while they do, as with a certificate that can't be checked.
fn handshakes(words: &mut Words<'_>) -> Result<Act, String> {
    let fail = match words.next()? {
        "fail" => true,
        "work" => false,
        other => return Err(format!("{other:?} is neither fail nor work")),
    };
    Ok(Box::new(move |stage| {
        stage.world.network.refuses_handshakes = fail;
        if !fail {
            let hosts: Vec<HostName> = stage.world.hosts.keys().cloned().collect();
            for one in &hosts {
                hosts.iter().filter(|other| *other != one).for_each(|other| stage.world.connect(one, other));
            }
        }
        Ok(())
    }))
}
