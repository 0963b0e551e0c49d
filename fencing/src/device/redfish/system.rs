//! What a Redfish `ComputerSystem` says, and how its reset is asked for.

use crate::reading::Power;
use crate::secret::Mask;
use crate::target::{MachineUuid, ReportedIdentity};
use crate::trouble::Trouble;
use serde_json::Value;

/// The only reset that is ever asked for.
pub const FORCE_OFF: &str = "ForceOff";

/// The reset action of a system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResetAction {
    /// Where to post to.
    pub target: String,
    /// What may be asked for; `None` if it isn't told.
    pub allowed: Option<Vec<String>>,
    /// Where that is told, if elsewhere.
    pub info: Option<String>,
}

/// A system, as one answer described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// Its power state.
    pub power: Power,
    /// Whose it is.
    pub identity: ReportedIdentity,
    /// How to reset it.
    pub reset: Option<ResetAction>,
    /// The answer's version, for services that want it back.
    pub etag: Option<String>,
}

impl System {
    /// Understands the description of a system.
    ///
    /// # Errors
    /// [`Trouble::Garbled`] if it doesn't plainly tell a power state.
    pub fn understand(body: &Value) -> Result<Self, Trouble> {
        let text = |key: &str| body.get(key).and_then(Value::as_str);
        let Some(state) = text("PowerState") else {
            let because = "its description of the system has no PowerState (is the URL that of a system?)".to_owned();
            return Err(Trouble::Garbled { because });
        };
        let power = match state {
            "On" => Power::On,
            "Off" => Power::Off,
            other => Power::Between(Mask::default().hide(other)),
        };
        // A UUID that can't be read identifies nobody, as none does.
        let uuid = text("UUID").and_then(|uuid| MachineUuid::parse(uuid).ok());
        let identity = ReportedIdentity::of(uuid, text("SerialNumber").map(str::to_owned));
        let etag = text("@odata.etag").map(str::to_owned);
        Ok(Self { power, identity, reset: reset_action(body), etag })
    }
}

fn reset_action(body: &Value) -> Option<ResetAction> {
    let action = body.get("Actions")?.get("#ComputerSystem.Reset")?;
    let target = action.get("target")?.as_str().filter(|target| target.starts_with('/'))?.to_owned();
    let allowed = action.get("ResetType@Redfish.AllowableValues").and_then(texts);
    let info = action.get("@Redfish.ActionInfo").and_then(Value::as_str).map(str::to_owned);
    Some(ResetAction { target, allowed, info })
}

/// What an `ActionInfo` allows for `ResetType`.
pub fn allowed_by_info(body: &Value) -> Option<Vec<String>> {
    let parameters = body.get("Parameters")?.as_array()?;
    let named = |one: &&Value| one.get("Name").and_then(Value::as_str) == Some("ResetType");
    parameters.iter().find(named)?.get("AllowableValues").and_then(texts)
}

fn texts(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|one| one.as_str().map(str::to_owned)).collect()
}

/// The paths of a collection's members.
pub fn members(body: &Value) -> Vec<String> {
    let members = body.get("Members").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    members.iter().filter_map(|one| one.get("@odata.id")?.as_str().map(str::to_owned)).collect()
}

/// The service's own words about an error.
pub fn error_text(body: Option<&Value>) -> String {
    let Some(error) = body.and_then(|body| body.get("error")) else { return String::new() };
    let extended = error.get("@Message.ExtendedInfo").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let messages = extended.iter().filter_map(|one| one.get("Message")?.as_str());
    let own = error.get("message").and_then(Value::as_str);
    let all: Vec<&str> = messages.chain(own).collect();
    all.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_off_is_off() {
        for (state, power) in [
            ("Off", Power::Off),
            ("On", Power::On),
            ("PoweringOff", Power::Between("PoweringOff".into())),
            ("Paused", Power::Between("Paused".into())),
            ("off", Power::Between("off".into())),
        ] {
            assert_eq!(System::understand(&json!({ "PowerState": state })).unwrap().power, power);
        }
        for body in [json!({}), json!({ "PowerState": null }), json!({ "PowerState": 0 }), json!([]), json!("Off")] {
            assert!(System::understand(&body).is_err(), "{body}");
        }
    }

    #[test]
    fn the_reset_action_is_found_in_both_places_where_it_may_stand() {
        let target = "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset";
        let body = json!({ "PowerState": "On", "Actions": { "#ComputerSystem.Reset": {
            "target": target, "ResetType@Redfish.AllowableValues": ["On", "ForceOff"] } } });
        let reset = System::understand(&body).unwrap().reset.unwrap();
        assert_eq!((reset.target.as_str(), reset.allowed), (target, Some(vec!["On".into(), "ForceOff".into()])));
        let info = json!({ "Parameters": [{ "Name": "ResetType", "AllowableValues": ["ForceOff"] }] });
        assert_eq!(allowed_by_info(&info), Some(vec!["ForceOff".into()]));
    }

    #[test]
    fn an_action_at_another_server_is_not_taken() {
        let body =
            json!({ "PowerState": "On", "Actions": { "#ComputerSystem.Reset": { "target": "https://evil/x" } } });
        assert_eq!(System::understand(&body).unwrap().reset, None);
    }
}
