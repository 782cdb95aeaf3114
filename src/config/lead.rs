//! What `sidescale lead` was given: an agent that stands in front of no server.

use std::time::Duration;

use clap::Args;

use super::{Agent, Config, ConfigError, UpstreamReady, check_addresses};
use crate::leader::Part;
use crate::leader::preference::can_have_lead;
use crate::proxy::Protocol;

/// Flags and variables of `sidescale lead`, as typed.
#[derive(Args, Clone, Debug)]
pub struct GivenLead {
    /// Those that `run` has, too.
    #[command(flatten)]
    pub agent: Agent,
}

// === impl GivenLead ===

impl GivenLead {
    /// Checks what was typed; everything wrong is named at once.
    pub fn into_config(self) -> Result<Config, Vec<ConfigError>> {
        let agent = &self.agent;
        let mut wrong = Vec::new();
        check_addresses(&agent.listeners(), &mut wrong);
        agent.check_times(&mut wrong);
        match agent.named() {
            // The Deployment that owns this pod is the lead's own: to scale that would be the worst guess of all.
            None | Some("") => wrong.push(ConfigError::NoTarget),
            Some(name) if !can_have_lead(name) => {
                wrong.push(ConfigError::LongTarget(name.to_owned()));
            }
            Some(_) => {}
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(Config {
            part: Part::Lead,
            routes: Vec::new(),
            upstream_protocol: Protocol::default(),
            upstream_ready: UpstreamReady::Tcp,
            server_metrics: None,
            limit: None,
            admin: agent.admin,
            member: agent.member,
            cluster: Some(agent.cluster()),
            gpu_devices: Vec::new(),
            memory_limit: None,
            deletion_costs: agent.deletion_costs,
            election: agent.election(),
            // Nobody sends requests here.
            propagation: Duration::ZERO,
            grace: Duration::ZERO,
            pod: agent.pod(agent.admin),
            policy: self.agent.policy,
        })
    }
}
