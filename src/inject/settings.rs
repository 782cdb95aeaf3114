//! What the annotations of a workload say about its sidecar.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::verdict::Refusal;
use crate::units::parse_duration;

/// What all annotations begin with.
pub(super) const PREFIX: &str = "sidescale.dev/";
/// Asks for a sidecar.
pub(super) const INJECT: &str = "sidescale.dev/inject";
/// What stood where inject changed something; `uninject` reads it.
pub(super) const ORIGINAL: &str = "sidescale.dev/original";
/// Annotations that others than inject read or write.
const OTHERS: [&str; 5] = ["paused", "resume", "term", "original-min", "original"];

/// Who the sidecar runs as: nobody whom an image has.
const USER: u32 = 65_532;

/// What is wrong with a value, and what to do.
type Wrong = (String, String);

/// The least grace period that is given to a pod whose manifest asks for less: `sidecar.yaml` has it.
pub(super) const LEAST_GRACE: Duration = Duration::from_secs(50);

/// What is wanted of one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// The server's container, where it cannot be told.
    pub(super) container: Option<String>,
    /// Ports that carry requests, by name or number; empty: what the Services say.
    pub(super) ports: Vec<String>,
    /// The first port that the sidecar takes for a named one; the next ones count up.
    pub(super) listen_port: u16,
    pub(super) admin_port: u16,
    pub(super) member_port: u16,
    /// Where the server goes when the sidecar takes its number.
    pub(super) server_port: Option<u16>,
    /// The flag by which it goes there.
    pub(super) port_flag: Option<String>,
    /// The variable by which it goes there.
    pub(super) port_env: Option<String>,
    /// Nothing stands in front of it.
    pub(super) passive: bool,
    /// `auto`, `http1` or `h2c`.
    pub(super) upstream_protocol: Option<String>,
    /// How long a drain may take; `None`: what the pod's grace period leaves, at least [`LEAST_GRACE`].
    pub(super) grace: Option<Duration>,
    /// The server's own preStop hook waits for the drain.
    pub(super) hook_is_composed: bool,
    /// ConfigMap with the policy.
    pub(super) policy: Option<String>,
    /// The leader may write which pods go first.
    pub(super) deletion_costs: bool,
    /// The annotations that somebody wrote, without their prefix.
    written: BTreeSet<String>,
    /// Who the sidecar runs as; `None`: whom the namespace says.
    pub(super) user: Option<u32>,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            container: None,
            ports: Vec::new(),
            listen_port: 8080,
            admin_port: 9090,
            member_port: 9190,
            server_port: None,
            port_flag: None,
            port_env: None,
            passive: false,
            upstream_protocol: None,
            grace: None,
            hook_is_composed: false,
            policy: None,
            deletion_costs: false,
            written: BTreeSet::new(),
            user: Some(USER),
        }
    }
}

impl Settings {
    /// Reads the annotations of a workload and of its template, which win.
    pub(super) fn read(
        place: &str,
        workload: &Value,
        template: &Value,
    ) -> Result<Self, Vec<Refusal>> {
        let (mut settings, mut refusals) = (Self::default(), Vec::new());
        for annotations in [workload, template] {
            for (key, value) in annotations.as_object().into_iter().flatten() {
                let Some(name) = key.strip_prefix(PREFIX) else {
                    continue;
                };
                let place = format!("{place} annotation {key}");
                let Some(text) = value.as_str() else {
                    refusals.push(Refusal::new(
                        place,
                        format!("{value} is not text"),
                        "write it in quotes",
                    ));
                    continue;
                };
                settings.written.insert(name.to_owned());
                if let Err((reason, remedy)) = settings.take(name, text) {
                    refusals.push(Refusal::new(place, reason, remedy));
                }
            }
        }
        if refusals.is_empty() {
            Ok(settings)
        } else {
            Err(refusals)
        }
    }

    /// Whether a person decided this, and not a default.
    pub(super) fn is_written(&self, name: &str) -> bool {
        self.written.contains(name)
    }

    fn take(&mut self, name: &str, text: &str) -> Result<(), Wrong> {
        match name {
            "inject" => {}
            "container" => self.container = Some(text.to_owned()),
            "ports" => {
                let ports = text.split(',').map(str::trim);
                let ports = ports.filter(|port| !port.is_empty());
                self.ports = ports.map(str::to_owned).collect();
            }
            "listen-port" => self.listen_port = port(text)?,
            "admin-port" => self.admin_port = port(text)?,
            "member-port" => self.member_port = port(text)?,
            "server-port" => self.server_port = Some(port(text)?),
            "port-flag" if text.starts_with('-') => self.port_flag = Some(text.to_owned()),
            "port-flag" => return wrong(text, "flag", "write it as in `--port`"),
            "port-env" => self.port_env = Some(text.to_owned()),
            "data-path" => {
                self.passive = one_of(text, "data path", &["proxy", "passive"])? == "passive";
            }
            "upstream-protocol" => {
                let protocol = one_of(text, "protocol", &["auto", "http1", "h2c"])?;
                self.upstream_protocol = Some(protocol);
            }
            "grace" => self.grace = Some(grace(text)?),
            "prestop-composed" => {
                self.hook_is_composed = one_of(text, "answer", &["true", "false"])? == "true";
            }
            "deletion-costs" => {
                self.deletion_costs = one_of(text, "answer", &["true", "false"])? == "true";
            }
            "run-as-user" => self.user = user(text)?,
            "policy" => self.policy = Some(text.to_owned()),
            other if OTHERS.contains(&other) => {}
            _ => {
                let reason = "is not known".to_owned();
                let remedy = "see `sidescale inject --help` for those that are".to_owned();
                return Err((reason, remedy));
            }
        }
        Ok(())
    }
}

fn port(text: &str) -> Result<u16, Wrong> {
    match text.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => wrong(text, "port", "write one from 1 to 65535"),
    }
}

fn user(text: &str) -> Result<Option<u32>, Wrong> {
    match text.parse() {
        _ if text == "namespace" => Ok(None),
        Ok(user) if user > 0 && i32::try_from(user).is_ok() => Ok(Some(user)),
        _ => wrong(
            text,
            "user",
            "write a number above 0, or \"namespace\", where the namespace says it (OpenShift)",
        ),
    }
}

fn grace(text: &str) -> Result<Duration, Wrong> {
    match parse_duration(text) {
        Ok(grace) if grace.subsec_nanos() == 0 && (1..=86_400).contains(&grace.as_secs()) => {
            Ok(grace)
        }
        _ => wrong(text, "time", "write whole seconds from 1s to 1d"),
    }
}

fn one_of(text: &str, what: &str, words: &[&str]) -> Result<String, Wrong> {
    if words.contains(&text) {
        Ok(text.to_owned())
    } else {
        wrong(text, what, &format!("write one of {}", words.join(", ")))
    }
}

fn wrong<T>(text: &str, what: &str, remedy: &str) -> Result<T, Wrong> {
    Err((format!("{text:?} is no {what}"), remedy.to_owned()))
}

/// `None`: neither.
pub(super) fn is_true(value: &Value) -> Option<bool> {
    match value.as_str() {
        Some("true") => Some(true),
        Some("false") => Some(false),
        _ => None,
    }
}
