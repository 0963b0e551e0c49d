//! Who may ask what: every request of the API, and the least role that it takes.
//!
//! Contract: a request that isn't listed here isn't part of the API. The roles are ordered, each may do what those
//! before it may. Whoever reaches the local socket is an administrator of the host and may do everything; what the
//! ledger asks of *people* (two approvals are two keys) is decided there, whatever the role.

use crate::engine::{FenceAct, Order};
use crate::pki::Role;
use hyper::Method;
use quorum::ledger::Person;

/// Who asks, and with what right.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// Who.
    pub person: Person,
    /// What the person may do.
    pub role: Role,
}

/// A request of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Status,
    Timing,
    Plans,
    Live,
    Spec,
    Revisions,
    Revision,
    Explain,
    Events,
    Audit,
    Fence,
    FenceTest,
    FenceOrder,
    FenceHistory,
    Apply,
    Move,
    Order,
    Transfer,
    KeptSets,
    KeptSet,
    KeptDelete,
    Members,
    Backup,
}

/// A request's method, its path (`*` stands for one part), and who may make it.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) least: Role,
    pub(super) call: Call,
}

const fn get(path: &'static str, call: Call) -> Route {
    Route { method: Method::GET, path, least: Role::Viewer, call }
}

const fn post(path: &'static str, least: Role, call: Call) -> Route {
    Route { method: Method::POST, path, least, call }
}

/// The whole API.
pub(super) const ROUTES: [Route; 23] = [
    get("/v1/status", Call::Status),
    get("/v1/timing", Call::Timing),
    get("/v1/plans", Call::Plans),
    // What a viewer can read part by part, in one piece: what-if plays it.
    get("/v1/live", Call::Live),
    get("/v1/spec", Call::Spec),
    get("/v1/revisions", Call::Revisions),
    get("/v1/revisions/*", Call::Revision),
    get("/v1/explain/*/*", Call::Explain),
    get("/v1/events", Call::Events),
    get("/v1/audit", Call::Audit),
    get("/v1/fence", Call::Fence),
    get("/v1/fence/history", Call::FenceHistory),
    // It reads devices, and keeps them busy with it.
    post("/v1/fence/test", Role::Operator, Call::FenceTest),
    // The least of all acts; `fence_needs` says what each takes.
    post("/v1/fence/order", Role::Operator, Call::FenceOrder),
    post("/v1/apply", Role::Admin, Call::Apply),
    post("/v1/move", Role::Operator, Call::Move),
    // The least of all orders; `order_needs` says what each takes.
    post("/v1/order", Role::Operator, Call::Order),
    post("/v1/transfer/*", Role::Admin, Call::Transfer),
    get("/v1/kept", Call::KeptSets),
    get("/v1/kept/*", Call::KeptSet),
    // It may be the only copy of what somebody was promised to be stored.
    post("/v1/kept/*/delete", Role::Admin, Call::KeptDelete),
    post("/v1/members", Role::Admin, Call::Members),
    // Everything that the cluster has decided, in one file.
    Route { method: Method::GET, path: "/v1/backup", least: Role::Admin, call: Call::Backup },
];

/// The route of a request, with the parts that its stars stand for.
pub(super) fn find<'p>(method: &Method, path: &'p str) -> Option<(&'static Route, Vec<&'p str>)> {
    static TABLE: [Route; 23] = ROUTES;
    let asked: Vec<&str> = path.trim_matches('/').split('/').collect();
    TABLE.iter().filter(|route| route.method == *method).find_map(|route| {
        let pattern: Vec<&str> = route.path.trim_matches('/').split('/').collect();
        let fits = pattern.len() == asked.len() && pattern.iter().zip(&asked).all(|(p, a)| *p == "*" || p == a);
        let stars = pattern.iter().zip(&asked).filter(|(p, _)| **p == "*").map(|(_, a)| *a);
        fits.then(|| (route, stars.collect()))
    })
}

/// The least role for an order. Named one by one: a new order must say who may give it.
pub(super) const fn order_needs(order: &Order) -> Role {
    match order {
        Order::Freeze { .. }
        | Order::Thaw { .. }
        | Order::Maintenance { .. }
        | Order::EndMaintenance { .. }
        | Order::CancelPlan { .. }
        | Order::RetryPlan { .. }
        | Order::Pin { .. }
        | Order::Unpin { .. } => Role::Operator,
        Order::Approve { .. }
        | Order::Deny { .. }
        | Order::SkipStep { .. }
        | Order::ReleaseBrake
        | Order::ReadmitHost { .. } => Role::Approver,
        Order::RemoveHost { .. } | Order::RemoveGroup { .. } => Role::Admin,
    }
}

/// The least role for an act of fencing; asking what it would come to changes nothing.
pub(super) const fn fence_needs(act: &FenceAct, is_dry: bool) -> Role {
    match act {
        FenceAct::Release => Role::Operator,
        FenceAct::Run | FenceAct::Override { .. } if is_dry => Role::Operator,
        FenceAct::Run | FenceAct::Override { .. } => Role::Approver,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Matter, Scope};

    fn orders() -> Vec<(&'static str, Order)> {
        let host = || "h".parse().expect("a name");
        let group = || "g".parse().expect("a name");
        let span_ms = 1;
        vec![
            ("freeze", Order::Freeze { scope: Scope::Cluster, span_ms, hold_activation: false }),
            ("thaw", Order::Thaw { freeze: 1 }),
            ("maintenance", Order::Maintenance { scope: Scope::Host(host()), span_ms }),
            ("end-maintenance", Order::EndMaintenance { scope: Scope::Host(host()) }),
            ("cancel-plan", Order::CancelPlan { plan: 1 }),
            ("retry-plan", Order::RetryPlan { plan: 1 }),
            ("pin", Order::Pin { group: group() }),
            ("unpin", Order::Unpin { group: group() }),
            ("approve", Order::Approve { matter: Matter::Plan(1) }),
            ("deny", Order::Deny { matter: Matter::Plan(1) }),
            ("skip-step", Order::SkipStep { plan: 1 }),
            ("release-brake", Order::ReleaseBrake),
            ("readmit-host", Order::ReadmitHost { host: host() }),
            ("remove-host", Order::RemoveHost { host: host() }),
            ("remove-group", Order::RemoveGroup { group: group() }),
        ]
    }

    /// Rows: what is asked. Columns: who asks.
    #[test]
    fn every_request_has_its_least_role_and_the_table_says_which() {
        let marks = |least: Role| Role::ALL.map(|role| if role >= least { "yes" } else { "-" }).join("\t");
        let mut table = format!("request\t{}\n", Role::ALL.map(Role::as_str).join("\t"));
        let by_content = [Call::Order, Call::FenceOrder];
        for route in ROUTES.iter().filter(|route| !by_content.contains(&route.call)) {
            table.push_str(&format!("{} {}\t{}\n", route.method, route.path, marks(route.least)));
        }
        for (name, order) in orders() {
            table.push_str(&format!("POST /v1/order {name}\t{}\n", marks(order_needs(&order))));
        }
        let acts = [
            ("run", FenceAct::Run),
            ("override", FenceAct::Override { at_once: false, span_ms: None }),
            ("release", FenceAct::Release),
        ];
        for (name, act) in acts {
            table.push_str(&format!("POST /v1/fence/order {name}\t{}\n", marks(fence_needs(&act, false))));
        }
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/admin/roles.txt");
        if std::env::var_os("BLESS").is_some() {
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            std::fs::write(&file, &table).expect("written");
        }
        assert_eq!(std::fs::read_to_string(&file).expect("the table; BLESS=1 writes it"), table);
    }

    #[test]
    fn every_route_is_found_by_its_own_path_and_no_other() {
        for route in &ROUTES {
            let path = route.path.replace('*', "x");
            let (found, stars) = find(&route.method, &path).expect("its own path");
            assert_eq!((found.call, stars.len()), (route.call, route.path.matches('*').count()));
            assert!(find(&route.method, &format!("{path}/more/than/that")).is_none());
            assert!(find(&Method::DELETE, &path).is_none());
        }
        assert!(find(&Method::GET, "/v1/move").is_none(), "a request of another method is another request");
    }
}
