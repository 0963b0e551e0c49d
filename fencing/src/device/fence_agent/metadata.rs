//! The metadata of a ClusterLabs fence agent: its parameters and actions, as its own XML tells them.

use crate::process::{Leash, Program};
use crate::topology::nearest;
use crate::trouble::Trouble;
use roxmltree::{Document, Node};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// A parameter of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Whether it must be given.
    pub required: bool,
    /// A newer one does the same.
    pub deprecated: bool,
    /// The older one that it replaces.
    pub obsoletes: Option<String>,
    /// Its sort: `string`, `boolean`, `integer`, `second`, `select`.
    pub sort: String,
    /// Its default.
    pub default: Option<String>,
    /// What may be chosen, for `select`.
    pub options: Vec<String>,
    /// What it means.
    pub about: String,
}

/// An action of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Action {
    /// Its name.
    pub name: String,
    /// Run by itself when the host joins again: the sign of an agent that cuts a path (fabric) and not power.
    pub automatic: bool,
}

/// What an agent says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// One line about it.
    pub about: String,
    /// Its parameters by name.
    pub parameters: BTreeMap<String, Parameter>,
    /// Its actions.
    pub actions: Vec<Action>,
}

impl Metadata {
    /// Asks the agent at `path`.
    ///
    /// # Errors
    /// [`Trouble`] if it can't be run or its XML can't be understood.
    pub async fn of(path: &Path, leash: &Leash) -> Result<Self, Trouble> {
        let asked = Program::new(path).input(crate::secret::Secret::new("action=metadata\n"));
        let finished = asked.run(leash).await?;
        if finished.code != Some(0) {
            let because = format!("its metadata can't be had: {}, {}", finished.ending(), finished.last_words());
            return Err(Trouble::Unusable { because });
        }
        Self::parse(&finished.stdout)
    }

    /// Understands an agent's XML.
    ///
    /// # Errors
    /// [`Trouble::Unusable`] if it isn't the metadata of a fence agent.
    pub fn parse(xml: &str) -> Result<Self, Trouble> {
        let unusable =
            |because: String| Trouble::Unusable { because: format!("its metadata can't be read: {because}") };
        // Some agents print warnings before the document.
        let start = xml.find("<?xml").or_else(|| xml.find("<resource-agent")).unwrap_or(0);
        let document = Document::parse(&xml[start..]).map_err(|error| unusable(error.to_string()))?;
        let root = document.root_element();
        if !root.has_tag_name("resource-agent") {
            return Err(unusable(format!("<{}> isn't a fence agent's", root.tag_name().name())));
        }
        let elements = |name: &'static str| root.descendants().filter(move |node| node.has_tag_name(name));
        let actions = elements("action").filter_map(action).collect();
        let parameters = elements("parameter").filter_map(parameter).map(|one| (one.name.clone(), one)).collect();
        let text = |name: &str| root.attribute(name).unwrap_or_default().to_owned();
        Ok(Self { name: text("name"), about: text("shortdesc"), parameters, actions })
    }

    /// Whether the agent can do `name`.
    pub fn can(&self, name: &str) -> bool {
        self.actions.iter().any(|action| action.name == name)
    }

    /// Whether it cuts a path to network or storage and not power: such agents open it again by themselves when the
    /// host joins.
    pub fn is_fabric(&self) -> bool {
        self.actions.iter().any(|action| action.name == "on" && action.automatic)
    }

    /// What is wrong with these options; each in one sentence.
    pub fn complaints<'a>(&self, options: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Vec<String> {
        let mut complaints = Vec::new();
        for (name, value) in options.clone() {
            match self.parameters.get(name) {
                None => {
                    let near = nearest(name, self.parameters.keys().map(String::as_str));
                    let hint = near.map(|near| format!(", did you mean `{near}`?")).unwrap_or_default();
                    complaints.push(format!("it has no parameter `{name}`{hint}"));
                }
                Some(parameter) => complaints.extend(parameter.complaint(value)),
            }
        }
        let given = |name: &str| options.clone().any(|(option, _)| option == name);
        // Action and plug are ours to give; a parameter may be given under the name of the one that it replaces.
        let missing = |one: &&Parameter| {
            let ours = matches!(one.name.as_str(), "action" | "plug" | "port");
            let old_name = one.obsoletes.as_deref().is_some_and(given);
            one.required && !one.deprecated && one.default.is_none() && !ours && !given(&one.name) && !old_name
        };
        complaints.extend(self.parameters.values().filter(missing).map(|one| format!("it needs `{}`", one.name)));
        complaints
    }
}

impl Parameter {
    fn complaint(&self, value: &str) -> Option<String> {
        let name = &self.name;
        let number = value.parse::<i64>().is_ok();
        match self.sort.as_str() {
            "integer" if !number => Some(format!("`{name}` must be a number, not {value:?}")),
            "second" if !number => Some(format!("`{name}` must be a number of seconds, not {value:?}")),
            "select" if !self.options.is_empty() && !self.options.iter().any(|option| option == value) => {
                Some(format!("`{name}` must be one of {}, not {value:?}", self.options.join(", ")))
            }
            _ => None,
        }
    }
}

fn action(node: Node<'_, '_>) -> Option<Action> {
    let name = node.attribute("name")?.to_owned();
    Some(Action { name, automatic: node.attribute("automatic") == Some("1") })
}

fn parameter(node: Node<'_, '_>) -> Option<Parameter> {
    let name = node.attribute("name")?.to_owned();
    let child = |tag: &str| node.children().find(|child| child.has_tag_name(tag));
    let content = child("content");
    let attribute = |key: &str| content.and_then(|content| content.attribute(key));
    let chosen = |option: Node<'_, '_>| option.attribute("value").map(str::to_owned);
    let options = content.into_iter().flat_map(|content| content.children());
    Some(Parameter {
        name,
        required: node.attribute("required") == Some("1"),
        deprecated: node.attribute("deprecated") == Some("1"),
        obsoletes: node.attribute("obsoletes").map(str::to_owned),
        sort: attribute("type").unwrap_or("string").to_owned(),
        default: attribute("default").map(str::to_owned),
        options: options.filter(|option| option.has_tag_name("option")).filter_map(chosen).collect(),
        about: child("shortdesc").and_then(|about| about.text()).unwrap_or_default().trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = r#"a warning that some agents print
<?xml version="1.0" ?>
<resource-agent name="fence_sample" shortdesc="Sample">
<parameters>
 <parameter name="ip" unique="0" required="1" obsoletes="ipaddr"><content type="string"/><shortdesc lang="en">Address</shortdesc></parameter>
 <parameter name="ipaddr" required="1" deprecated="1"><content type="string"/></parameter>
 <parameter name="ipport" required="0"><content type="integer" default="623"/></parameter>
 <parameter name="method" required="0"><content type="select" default="onoff"><option value="onoff"/><option value="cycle"/></content></parameter>
</parameters>
<actions><action name="on" automatic="0"/><action name="off"/><action name="status"/></actions>
</resource-agent>"#;

    #[test]
    fn parameters_and_actions_are_understood() {
        let metadata = Metadata::parse(XML).unwrap();
        assert!(metadata.can("off") && metadata.can("status") && !metadata.can("list"));
        assert!(!metadata.is_fabric());
        assert_eq!(metadata.parameters["ipport"].default.as_deref(), Some("623"));
        assert_eq!(metadata.parameters["method"].options, ["onoff", "cycle"]);
        assert!(Metadata::parse(&XML.replace(r#"automatic="0""#, r#"automatic="1""#)).unwrap().is_fabric());
    }

    #[test]
    fn options_are_held_against_the_parameters() {
        let metadata = Metadata::parse(XML).unwrap();
        let complaints =
            |options: &[(&'static str, &'static str)]| metadata.complaints(options.iter().copied()).join("; ");
        assert_eq!(complaints(&[("ip", "10.0.0.9"), ("ipport", "623")]), "");
        assert_eq!(complaints(&[("ipaddr", "10.0.0.9")]), "");
        assert_eq!(complaints(&[("ipport", "623")]), "it needs `ip`");
        let text = complaints(&[("ipaddr", "a"), ("ipprt", "1"), ("ipport", "x"), ("method", "hard")]);
        assert!(
            text.contains("did you mean `ipport`?")
                && text.contains("must be a number")
                && text.contains("one of onoff, cycle"),
            "{text}"
        );
    }

    #[test]
    fn what_is_no_metadata_is_refused() {
        for xml in ["", "<a/>", "no xml at all", "<resource-agent"] {
            assert!(Metadata::parse(xml).is_err(), "{xml:?}");
        }
    }
}
