//! Reads a policy from YAML and refuses what is unknown, contradictory or out of range: all problems in one go.

use std::fmt;

use super::field::{Field, Fields, Names, Problems};
use super::metric::metrics;
use super::node::Node;
use super::schema::{
    BEHAVIOR, COST_RATIO, HISTORY, LEAD_TIME, MAX_AHEAD, PERIOD, POLICY, PREDICTION, QUANTILE,
    REPLICAS, RESOURCE, RULES, SCALING_POLICY, STABILIZATION, TARGET, TOLERANCE, VALUE,
};
use super::{
    Behavior, DataPath, LeadTime, Mode, Policy, Prediction, ScalingPolicy, ScalingPolicyKind,
    ScalingRules, SelectPolicy, Target, defaults,
};

/// Why a policy was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The text is not YAML, or not one document of it.
    #[error("cannot read the policy as YAML")]
    Syntax(#[source] Box<serde_saphyr::Error>),
    /// The YAML is no policy.
    #[error("policy refused: {}", lines(.0))]
    Refused(Vec<Problem>),
}

/// One thing that is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The way to the field, such as `metrics[0].perSecond`; empty: the document itself.
    pub path: String,
    /// Where it stands, counted from 1; `None`: it stands nowhere.
    pub line: Option<u64>,
    /// The value, the range and the remedy.
    pub text: String,
}

// === impl Problem ===

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if self.path.is_empty() {
            return f.write_str(&self.text);
        }
        // `maxReplicas is missing`, but `quantile: 120 is out of range`.
        let is_about_the_name = self.text.starts_with("is ");
        let colon = if is_about_the_name { "" } else { ":" };
        write!(f, "{}{colon} {}", self.path, self.text)
    }
}

/// Reads a policy, complete and valid: what is not given has its default.
pub fn read(text: &str) -> Result<Policy, PolicyError> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        // Kept, so that they are refused with their path like all else.
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
    };
    let root: Node = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| PolicyError::Syntax(Box::new(error)))?;
    let mut problems = Problems::default();
    match policy(&Field::root(&root), &mut problems) {
        Some(policy) if problems.0.is_empty() => Ok(policy),
        _ => Err(PolicyError::Refused(in_reading_order(problems.0))),
    }
}

/// `None` only together with a problem that says why.
fn policy(root: &Field<'_>, problems: &mut Problems) -> Option<Policy> {
    let names = Names {
        later: &[POLICY.later, &RESOURCE].concat(),
        ..POLICY
    };
    let fields = root.fields(names, problems)?;
    let min = fields.get("minReplicas");
    let min_replicas = min.as_ref().map_or(Some(defaults::MIN_REPLICAS), |field| {
        field.count(&REPLICAS, problems)
    });
    let why = "say how many replicas may be paid for, for example maxReplicas: 10";
    let max_replicas = fields
        .require("maxReplicas", why, problems)
        .and_then(|field| field.count(&REPLICAS, problems));
    if let (Some(field), Some(min), Some(max)) = (&min, min_replicas, max_replicas)
        && min > max
    {
        let text = format!("{min} is above maxReplicas ({max}); lower it or raise maxReplicas");
        field.refuse(problems, text);
    }
    let mode = mode(&fields, problems);
    let data_path = data_path(&fields, problems);
    let target = fields.get("target").map(|field| target(&field, problems));
    let metrics = fields
        .get("metrics")
        .map_or_else(Vec::new, |field| metrics(&field, problems));
    let prediction = fields.get("prediction").map_or_else(
        || Some(Prediction::default()),
        |it| prediction(&it, problems),
    );
    let behavior = behavior(&fields, mode, problems);
    let mut policy = Policy::with_bounds(min_replicas?, max_replicas?);
    policy.target = match target {
        Some(given) => Some(given?),
        None => None,
    };
    policy.mode = mode?;
    policy.data_path = data_path?;
    if !metrics.is_empty() {
        policy.metrics = metrics;
    }
    policy.prediction = prediction?;
    policy.behavior = behavior?;
    Some(policy)
}

fn mode(fields: &Fields<'_>, problems: &mut Problems) -> Option<Mode> {
    fields.get("mode").map_or(Some(Mode::default()), |field| {
        field.word(&Mode::WORDS, &[], problems)
    })
}

fn data_path(fields: &Fields<'_>, problems: &mut Problems) -> Option<DataPath> {
    let field = fields.get("dataPath");
    field.map_or(Some(DataPath::default()), |field| {
        field.word(&DataPath::WORDS, &[], problems)
    })
}

fn target(field: &Field<'_>, problems: &mut Problems) -> Option<Target> {
    let fields = field.fields(TARGET, problems)?;
    if let Some(kind) = fields.get("kind") {
        let later = ["StatefulSet", "Rollout", "LeaderWorkerSet"];
        kind.word(&[("Deployment", ())], &later, problems);
    }
    let why = "name the Deployment, or leave target out for the one that owns the pod";
    let name = fields.require("name", why, problems)?;
    if let Some(text) = name.text().filter(|text| is_object_name(text)) {
        return Some(Target {
            name: text.to_owned(),
        });
    }
    let text = format!(
        "{} is not a Kubernetes name; write lower-case letters, digits, `-` and `.`, at most 253, digits alone in quotes",
        name.shown()
    );
    name.refuse(problems, text);
    None
}

fn is_object_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= 253 && text.chars().all(inner) && text.starts_with(edge) && text.ends_with(edge)
}

fn prediction(field: &Field<'_>, problems: &mut Problems) -> Option<Prediction> {
    let fields = field.fields(PREDICTION, problems)?;
    let mut prediction = Prediction::default();
    if let Some(field) = fields.get("quantile") {
        let percent = field.number(&QUANTILE, problems);
        prediction.quantile = percent.map_or(prediction.quantile, |percent| percent / 100.0);
    }
    if let Some(field) = fields.get("costRatio") {
        let given = field.number(&COST_RATIO, problems);
        prediction.cost_ratio = given.unwrap_or(prediction.cost_ratio);
    }
    if let Some(field) = fields.get("leadTime")
        && field.text() != Some("auto")
    {
        let given = field.duration(&LEAD_TIME, problems);
        prediction.lead_time = given.map_or(LeadTime::Auto, LeadTime::Fixed);
    }
    if let Some(field) = fields.get("history") {
        let given = field.duration(&HISTORY, problems);
        prediction.history = given.unwrap_or(prediction.history);
    }
    if let Some(field) = fields.get("maxAhead") {
        prediction.max_ahead = field.percent(&MAX_AHEAD, problems);
    }
    Some(prediction)
}

fn behavior(fields: &Fields<'_>, mode: Option<Mode>, problems: &mut Problems) -> Option<Behavior> {
    let mut behavior = Behavior::default();
    let Some(field) = fields.get("behavior") else {
        return Some(behavior);
    };
    let fields = field.fields(BEHAVIOR, problems)?;
    if let Some(field) = fields.get("scaleUp") {
        rules(&field, &mut behavior.scale_up, problems);
        if mode == Some(Mode::ScaleUpOnly) && behavior.scale_up.select == SelectPolicy::Disabled {
            let text = "contradicts mode: scaleUpOnly, together nothing would ever be scaled; write mode: observe";
            field.refuse(problems, text.to_owned());
        }
    }
    if let Some(field) = fields.get("scaleDown") {
        rules(&field, &mut behavior.scale_down, problems);
    }
    Some(behavior)
}

/// Overwrites what is given; the rest keeps its default.
fn rules(field: &Field<'_>, rules: &mut ScalingRules, problems: &mut Problems) {
    let Some(fields) = field.fields(RULES, problems) else {
        return;
    };
    if let Some(field) = fields.get("stabilizationWindowSeconds") {
        let given = field.duration(&STABILIZATION, problems);
        rules.stabilization_window = given.unwrap_or(rules.stabilization_window);
    }
    if let Some(field) = fields.get("selectPolicy") {
        let given = field.word(&SelectPolicy::WORDS, &[], problems);
        rules.select = given.unwrap_or(rules.select);
    }
    if let Some(field) = fields.get("tolerance") {
        let given = field.number(&TOLERANCE, problems);
        rules.tolerance = given.unwrap_or(rules.tolerance);
    }
    if let Some(field) = fields.get("policies") {
        let items = field.items(problems);
        let policies = items.iter().filter_map(|it| scaling_policy(it, problems));
        rules.policies = policies.collect();
    }
}

fn scaling_policy(item: &Field<'_>, problems: &mut Problems) -> Option<ScalingPolicy> {
    let fields = item.fields(SCALING_POLICY, problems)?;
    let kind = fields
        .require("type", "write type: Pods or type: Percent", problems)
        .and_then(|field| field.word(&ScalingPolicyKind::WORDS, &[], problems));
    let value = fields
        .require("value", "write for example value: 4", problems)
        .and_then(|field| field.count(&VALUE, problems));
    let period = fields
        .require(
            "periodSeconds",
            "write for example periodSeconds: 60",
            problems,
        )
        .and_then(|field| field.duration(&PERIOD, problems));
    Some(ScalingPolicy {
        kind: kind?,
        value: value?,
        period: period?,
    })
}

/// As a person goes through the file from the top; what stands nowhere comes last.
fn in_reading_order(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by_key(|problem| problem.line.unwrap_or(u64::MAX));
    problems
}

fn lines(problems: &[Problem]) -> String {
    match problems {
        [one] => one.to_string(),
        many => many.iter().fold(String::new(), |text, problem| {
            text + "\n  " + &problem.to_string()
        }),
    }
}
