//! Chooses among the hosts of a group's places.

use quorum::id::HostName;

/// A host that might run the group, in the order of the spec: places by name, hosts best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which host.
    pub host: HostName,
    /// It is admitted and heard.
    pub is_alive: bool,
    /// It is the owner that the group leaves.
    pub is_owner: bool,
    /// In maintenance, itself or its site.
    pub in_maintenance: bool,
    /// Held for flapping.
    pub is_held: bool,
    /// The group is tied to a host: nobody else can be chosen.
    pub is_barred: bool,
    /// Its copy of the data is in sync, or the group has none.
    pub has_data: bool,
    /// How many groups it may run already.
    pub load: usize,
}

/// Why a host isn't chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// It is the owner that the group leaves.
    Owner,
    /// It isn't admitted, or silent.
    NotAlive,
    /// The group is pinned elsewhere.
    Barred,
    /// In maintenance.
    Maintenance,
    /// Held for flapping.
    Held,
    /// Its copy isn't in sync.
    NoData,
}

impl Rejection {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "it is the owner that the group leaves",
            Self::NotAlive => "it is silent or not admitted",
            Self::Barred => "the group is pinned elsewhere",
            Self::Maintenance => "it is in maintenance",
            Self::Held => "it is held because it flaps",
            Self::NoData => "its copy of the data is not in sync",
        }
    }
}

/// The choice and why not the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The best host, if any fits.
    pub host: Option<HostName>,
    /// The others.
    pub rejected: Vec<(HostName, Rejection)>,
}

/// Chooses the fitting candidate with the least load; among equals the first.
///
/// With `demands_data` a host whose copy isn't in sync is rejected; the caller asks again without where a loss of
/// data may be allowed or accepted.
pub fn choose(candidates: &[Candidate], demands_data: bool) -> Choice {
    let mut choice = Choice::default();
    let mut best: Option<&Candidate> = None;
    for candidate in candidates {
        match reject(candidate, demands_data) {
            Some(rejection) => choice.rejected.push((candidate.host.clone(), rejection)),
            None if best.is_none_or(|best| candidate.load < best.load) => best = Some(candidate),
            None => {}
        }
    }
    choice.host = best.map(|candidate| candidate.host.clone());
    choice
}

fn reject(candidate: &Candidate, demands_data: bool) -> Option<Rejection> {
    let reasons = [
        (candidate.is_owner, Rejection::Owner),
        (!candidate.is_alive, Rejection::NotAlive),
        (candidate.is_barred, Rejection::Barred),
        (candidate.in_maintenance, Rejection::Maintenance),
        (candidate.is_held, Rejection::Held),
        (demands_data && !candidate.has_data, Rejection::NoData),
    ];
    reasons.into_iter().find(|(applies, _)| *applies).map(|(_, rejection)| rejection)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str) -> Candidate {
        Candidate {
            host: HostName::new(name).expect("a name"),
            is_alive: true,
            is_owner: false,
            in_maintenance: false,
            is_held: false,
            is_barred: false,
            has_data: true,
            load: 0,
        }
    }

    #[test]
    fn the_least_loaded_fitting_host_is_chosen_and_each_other_has_its_reason() {
        let candidates = [
            Candidate { is_owner: true, ..candidate("a1") },
            Candidate { load: 2, ..candidate("b1") },
            Candidate { load: 1, ..candidate("b2") },
            Candidate { is_alive: false, ..candidate("b3") },
            Candidate { in_maintenance: true, ..candidate("b4") },
            Candidate { has_data: false, ..candidate("b5") },
        ];
        let choice = choose(&candidates, true);
        assert_eq!(choice.host, Some(HostName::new("b2").expect("a name")));
        let reasons: Vec<Rejection> = choice.rejected.iter().map(|(_, reason)| *reason).collect();
        assert_eq!(reasons, [Rejection::Owner, Rejection::NotAlive, Rejection::Maintenance, Rejection::NoData]);
    }

    #[test]
    fn a_stale_copy_is_chosen_only_where_data_is_not_demanded() {
        let candidates = [Candidate { has_data: false, ..candidate("b1") }];
        assert_eq!(choose(&candidates, true).host, None);
        assert!(choose(&candidates, false).host.is_some());
    }

    #[test]
    fn a_pinned_group_goes_nowhere() {
        assert_eq!(choose(&[Candidate { is_barred: true, ..candidate("b1") }], false).host, None);
    }
}
