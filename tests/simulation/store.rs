//! The API server in memory: one Lease and one Deployment with versions, and the promises checked at each write.

use std::collections::BTreeMap;
use std::time::Duration;

use sidescale::leader::machine::{Action, Answer};
use sidescale::leader::{Record, Token};
use sidescale::scale::DeploymentView;
use sidescale::scale::fence::Term;

/// What a process asks of the API server.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Lease(Action),
    View,
    Stamp {
        term: Term,
        version: String,
    },
    Scale {
        term: Term,
        version: String,
        replicas: u32,
    },
}

/// What it answers.
#[derive(Clone, Debug)]
pub(crate) enum Response {
    Lease(Answer),
    View(Box<DeploymentView>),
    Stamped(Term),
    Scaled,
    Conflict,
}

#[derive(Debug)]
pub(crate) struct Store {
    versions: u64,
    pub(crate) lease: Option<(Record, String)>,
    deployment: DeploymentView,
    /// Whether writes to the Deployment need the version they were decided on; without it the fence is down.
    pub(crate) fenced: bool,
    /// Who wrote in each term.
    writers: BTreeMap<u64, Token>,
    /// Requests that arrived, by verb: the load on the API server.
    pub(crate) asked: BTreeMap<&'static str, u32>,
    /// When replicas were last written, and in which term.
    pub(crate) scaled: Option<(Duration, u64)>,
    pub(crate) violations: Vec<String>,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self {
            versions: 1,
            // As `inject` emits it.
            lease: Some((Record::default(), "1".to_owned())),
            deployment: DeploymentView {
                name: "bert".to_owned(),
                uid: "u".to_owned(),
                resource_version: "1".to_owned(),
                spec_replicas: 3,
                ..DeploymentView::default()
            },
            fenced: true,
            writers: BTreeMap::new(),
            asked: BTreeMap::new(),
            scaled: None,
            violations: Vec::new(),
        }
    }

    /// A pod turned ready: the status changes, and with it the version.
    pub(crate) fn touch(&mut self) {
        self.deployment.resource_version = self.version();
    }

    /// Somebody deleted the Lease.
    pub(crate) fn delete_lease(&mut self) {
        self.lease = None;
        self.versions += 1;
    }

    pub(crate) fn apply(&mut self, now: Duration, request: Request) -> Response {
        let verb = match &request {
            Request::Lease(Action::Get) => "get lease",
            Request::Lease(Action::Create(_)) => "create lease",
            Request::Lease(Action::Put { .. }) => "put lease",
            Request::View => "get deployment",
            Request::Stamp { .. } => "patch deployments/status",
            Request::Scale { .. } => "patch deployments/scale",
        };
        *self.asked.entry(verb).or_default() += 1;
        match request {
            Request::Lease(action) => Response::Lease(self.lease(action)),
            Request::View => Response::View(Box::new(self.deployment.clone())),
            Request::Stamp { term, version } => self.stamp(term, &version),
            Request::Scale {
                term,
                version,
                replicas,
            } => self.scale(now, &term, &version, replicas),
        }
    }

    fn lease(&mut self, action: Action) -> Answer {
        let record = match (action, &self.lease) {
            (Action::Get, Some((record, version))) => {
                return Answer::Found {
                    record: record.clone(),
                    version: version.clone(),
                };
            }
            (Action::Get, None) => return Answer::Missing,
            (Action::Create(record), None) => record,
            (Action::Put { record, version }, Some((old, present))) if version == *present => {
                self.check_transition(&old.clone(), &record);
                record
            }
            (Action::Create(_), Some(_)) | (Action::Put { .. }, _) => return Answer::Conflict,
        };
        let version = self.version();
        self.lease = Some((record, version.clone()));
        Answer::Written { version }
    }

    fn check_transition(&mut self, old: &Record, new: &Record) {
        let changed = !new.is_free() && new.holder != old.holder;
        if new.transitions != old.transitions + u64::from(changed) {
            self.violations
                .push(format!("transitions went from {old:?} to {new:?}"));
        }
        if !old.is_free() && new.is_free() && new.transitions != old.transitions {
            self.violations
                .push("a release lost the transitions".to_owned());
        }
    }

    fn stamp(&mut self, term: Term, version: &str) -> Response {
        if self.fenced && version != self.deployment.resource_version {
            return Response::Conflict;
        }
        if term.number <= self.deployment.stamp {
            self.violations.push(format!(
                "stamp {} after {}",
                term.number, self.deployment.stamp
            ));
        }
        self.deployment.stamp = term.number;
        self.touch();
        Response::Stamped(term)
    }

    fn scale(&mut self, now: Duration, term: &Term, version: &str, replicas: u32) -> Response {
        if self.fenced && version != self.deployment.resource_version {
            return Response::Conflict;
        }
        if term.number != self.deployment.stamp {
            let stamp = self.deployment.stamp;
            self.violations.push(format!(
                "a patch of term {} was applied under stamp {stamp}",
                term.number
            ));
        }
        let writer = self
            .writers
            .entry(term.number)
            .or_insert_with(|| term.token.clone());
        if *writer != term.token {
            self.violations
                .push(format!("two leaders wrote in term {}", term.number));
        }
        self.deployment.spec_replicas = replicas;
        self.scaled = Some((now, term.number));
        self.touch();
        Response::Scaled
    }

    fn version(&mut self) -> String {
        self.versions += 1;
        self.versions.to_string()
    }
}
