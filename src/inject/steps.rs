//! The steps of one workload, in their order.

use serde_json::{Value, json};

use super::prospect::Prospect;
use super::rights::Part;
use super::settings::Settings;
use super::task::{Task, containers, declared};
use super::verdict::{Note, Refusal};
use super::workload::{Kind, Workload, is_asked};
use super::{
    ORIGINAL_AT, Options, Surroundings, account, callers, companions, deletion_costs, ending,
    kinds, lead, listening, network, owners, ports, probes, resources, restore, server, sidecar,
    speech,
};

/// A workload with its sidecar.
pub(super) struct Injected {
    pub(super) workload: Value,
    /// From what it was, as a JSON patch; without the annotation for `uninject`.
    pub(super) patch: Vec<Value>,
    pub(super) companions: Vec<Value>,
    pub(super) notes: Vec<Note>,
    pub(super) prospect: Prospect,
}

/// `Ok(None)`: nobody asked.
pub(super) fn injected(
    object: &Value,
    surroundings: &Surroundings,
    options: &Options,
) -> Result<Option<Injected>, Vec<Refusal>> {
    let one = |refusal| vec![refusal];
    let Some(object) = asked(object, options).map_err(one)? else {
        return Ok(None);
    };
    let Some(workload) = Workload::of(&object).map_err(one)? else {
        return Err(one(kinds::refuse(&object)));
    };
    let template = object
        .pointer(workload.kind.template())
        .unwrap_or(&Value::Null);
    let settings = Settings::read(
        &workload.place(),
        &object["metadata"]["annotations"],
        &template["metadata"]["annotations"],
    )?;
    let mut task = Task::new(workload, settings, object);
    let companions = take(&mut task, surroundings, options)?;
    let patch = task.edits.patch().to_vec();
    let original = json!(serde_json::to_string(task.edits.before()).unwrap_or_default());
    let remembered = task.edits.set(ORIGINAL_AT, original);
    task.check(remembered);
    if !task.refusals.is_empty() {
        return Err(task.refusals);
    }
    Ok(Some(Injected {
        workload: task.edits.document().clone(),
        patch,
        companions,
        prospect: Prospect::of(&task),
        notes: task.notes,
    }))
}

/// The object as it was before anything was injected; `Ok(None)`: nobody asked.
pub(super) fn asked(object: &Value, options: &Options) -> Result<Option<Value>, Refusal> {
    if !is_asked(object, options.selector.as_ref())? {
        return Ok(None);
    }
    let mut object = object.clone();
    // Twice is once.
    restore(&mut object)?;
    Ok(Some(object))
}

/// All steps; the companions of the workload, or what was refused.
pub(super) fn take(
    task: &mut Task,
    surroundings: &Surroundings,
    options: &Options,
) -> Result<Vec<Value>, Vec<Refusal>> {
    let companions = steps(task, surroundings, options);
    if task.refusals.is_empty() {
        Ok(companions)
    } else {
        Err(std::mem::take(&mut task.refusals))
    }
}

/// The companions are worth nothing where something was refused.
fn steps(task: &mut Task, surroundings: &Surroundings, options: &Options) -> Vec<Value> {
    owners::refuse_rendered(task);
    refuse_unsuitable(task);
    let Some(server) = server::choose(task, &surroundings.services) else {
        return Vec::new();
    };
    task.server = server;
    // As the names are before they move.
    let names: Vec<(String, u16)> = declared(task.in_server(""))
        .filter_map(|(name, number)| Some((name?.to_owned(), number)))
        .collect();
    let routes = ports::hand_over(task, &surroundings.services);
    if routes.is_empty() || !task.refusals.is_empty() {
        return Vec::new();
    }
    network::check(task, &surroundings.isolations, &routes);
    speech::refuse_tls(
        task,
        &surroundings.services,
        &surroundings.backends,
        &names,
        &routes,
    );
    if !task.settings.passive {
        listening::refuse_pod_address(task);
    }
    callers::name(task, &routes);
    let ready = probes::hand_over(task, &names, &routes);
    let ending = ending::prepare(task);
    task.grace = ending.grace;
    let in_the_cluster = sidecar::is_in_the_cluster(task);
    let account = in_the_cluster.then(|| account::settle(task));
    let resources = resources::fit(task);
    let settled = sidecar::Settled {
        routes: &routes,
        ready: &ready,
        ending,
        resources,
        follows: options.lead,
    };
    sidecar::insert(task, &options.image, options.classic, &settled);
    owners::hand_over_replicas(task, &surroundings.scalers);
    let Some(account) = account else {
        task.note("only Deployments are scaled: here the sidecar carries requests and measures, and has no account");
        return Vec::new();
    };
    if task.workload.kind == Kind::Admitted {
        return Vec::new();
    }
    let network = network::beside(task, &surroundings.isolations, options.network);
    let bounds = owners::bounds(&surroundings.scalers, &task.workload);
    let part = if options.lead {
        Part::Follower
    } else {
        Part::Sidecar
    };
    deletion_costs::check(task, &account, part);
    let mut beside = companions::of(task, &account, part, bounds, network.as_ref());
    if options.lead {
        beside.extend(lead::of(task, &options.image));
    }
    beside
}

/// Refuses pods that no sidecar can stand in.
fn refuse_unsuitable(task: &mut Task) {
    let pod = task.in_pod("").clone();
    if pod["hostNetwork"] == true {
        task.refuse(
            "hostNetwork",
            "the pod has the node's ports, where each port can be taken once",
            "use the pod network, or set sidescale.dev/inject: \"false\"",
        );
    }
    if pod["os"]["name"] == "windows" {
        task.refuse("os.name", "the sidecar runs on Linux", "leave it out");
    }
    let taken = containers(&pod).any(|container| container.name == sidecar::NAME);
    if taken {
        task.refuse(
            "containers",
            "there is one called sidescale that inject did not put there",
            "take it out first, with what was changed for it; or keep it, and take the annotation away",
        );
    }
}
