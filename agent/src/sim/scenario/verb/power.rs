//! `power`: mains of hosts and sites.

use super::super::words::Words;
use super::{Act, Verb};

pub(super) const VERBS: [Verb; 1] = [Verb { name: "power", usage: "power HOSTS on|off", read: power }];

fn power(words: &mut Words<'_>) -> Result<Act, String> {
    let hosts = words.hosts()?;
    let is_on = match words.next()? {
        "on" => true,
        "off" => false,
        other => return Err(format!("{other:?} is neither on nor off")),
    };
    Ok(Box::new(move |stage| {
        for host in &hosts {
            if is_on { stage.world.power_on(host) } else { stage.world.power_off(host) }
        }
        Ok(())
    }))
}
