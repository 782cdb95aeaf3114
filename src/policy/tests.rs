use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Every problem of a text, a line each.
fn refusal(text: &str) -> Vec<String> {
    match read(text) {
        Err(PolicyError::Refused(problems)) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("not refused: {other:?}"),
    }
}

/// One wrong field under an otherwise good policy.
fn check(text: &str, expected: &str) {
    assert_eq!(
        refusal(&format!("maxReplicas: 10\n{text}")),
        [expected],
        "{text}"
    );
}

#[test]
fn a_whole_policy_is_read_as_it_is_written() {
    let policy = read(
        "target: {kind: Deployment, name: bert-intent-detection}
mode: auto
minReplicas: 2
maxReplicas: 40
metrics:
  - {type: gpu, averageUtilization: 60}
  - {type: requestRate, perSecond: 5}
  - {type: concurrency, averageValue: \"8\"}
prediction: {quantile: 97.5, costRatio: 80, leadTime: 180s, history: 7d, maxAhead: 100%}
dataPath: passive
behavior:
  scaleUp:
    selectPolicy: Min
    policies: [{type: Pods, value: 4, periodSeconds: 15}, {type: Percent, value: 100, periodSeconds: 60}]
    tolerance: 50m
  scaleDown: {stabilizationWindowSeconds: 600}
",
    )
    .expect("every field is right");
    let mut expected = Policy::with_bounds(2, 40);
    expected.data_path = DataPath::Passive;
    expected.target = Some(Target {
        name: "bert-intent-detection".to_owned(),
    });
    expected.mode = Mode::Auto;
    expected.metrics = vec![
        Metric::Gpu {
            average_utilization: 60.0,
        },
        Metric::RequestRate { per_second: 5.0 },
        Metric::Concurrency { average_value: 8.0 },
    ];
    expected.prediction = Prediction {
        quantile: 0.975,
        cost_ratio: 80.0,
        lead_time: LeadTime::Fixed(Duration::from_secs(180)),
        history: Duration::from_secs(7 * 86_400),
        max_ahead: Some(1.0),
    };
    expected.behavior.scale_up = ScalingRules {
        stabilization_window: Duration::ZERO,
        select: SelectPolicy::Min,
        policies: vec![
            ScalingPolicy {
                kind: ScalingPolicyKind::Pods,
                value: 4,
                period: Duration::from_secs(15),
            },
            ScalingPolicy {
                kind: ScalingPolicyKind::Percent,
                value: 100,
                period: Duration::from_secs(60),
            },
        ],
        tolerance: 0.05,
    };
    expected.behavior.scale_down.stabilization_window = Duration::from_secs(600);
    assert_eq!(policy, expected);
}

#[test]
fn what_is_not_given_has_its_default() {
    let policy = read("maxReplicas: 10\nbehavior:\nmetrics: []\n").expect("the shortest policy");
    assert_eq!(policy, Policy::with_bounds(1, 10));
    assert_eq!(policy.mode, Mode::Observe);
    assert_eq!(
        policy.metrics,
        [Metric::Concurrency {
            average_value: defaults::CONCURRENCY
        }]
    );
}

#[test]
fn nothing_at_all_lacks_only_what_may_be_spent() {
    for text in ["", "# later\n", "{}"] {
        let problems = refusal(text);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].contains("maxReplicas is missing; say how many replicas may be paid for"),
            "{problems:?}"
        );
    }
}

#[test]
fn a_wrong_field_is_refused_with_line_path_value_range_and_remedy() {
    check(
        "prediction:\n  quantile: 120",
        "line 3: prediction.quantile: 120 is out of range (50 < quantile < 100); write for example 95",
    );
    check(
        "minReplicas: 0",
        "line 2: minReplicas: 0 is out of range (1 <= replicas <= 100000; zero needs the gateway, which this version does not have); write for example 2",
    );
    check(
        "minReplicas: 2.5",
        "line 2: minReplicas: 2.5 is not a whole number; write for example 2",
    );
    check(
        "minReplicas: 12",
        "line 2: minReplicas: 12 is above maxReplicas (10); lower it or raise maxReplicas",
    );
    check(
        "prediction: {leadTime: soon}",
        "line 2: prediction.leadTime: `soon` is not a duration (1s <= leadTime <= 6h); write a number with s, m, h or d, for example 180s",
    );
    check(
        "prediction: {history: 60d}",
        "line 2: prediction.history: 60d is out of range (1h <= history <= 28d); write for example 14d",
    );
    check(
        "prediction: {maxAhead: 2}",
        "line 2: prediction.maxAhead: 2 is not a number with a percent sign (0% < maxAhead <= 10000%; to not look ahead at all write mode: reactive); write for example 100%",
    );
    check(
        "behavior: {scaleDown: {policies: [{type: Pods, value: 0, periodSeconds: 60}]}}",
        "line 2: behavior.scaleDown.policies[0].value: 0 is out of range (1 <= value <= 1000000); write for example 4",
    );
    check(
        "target: {name: Not_A_Name}",
        "line 2: target.name: `Not_A_Name` is not a Kubernetes name; write lower-case letters, digits, `-` and `.`, at most 253, digits alone in quotes",
    );
    check(
        "metrics: 5",
        "line 2: metrics: 5 is not a list; start each item with `- `",
    );
    check(
        "behavior: [1]",
        "line 2: behavior: a list is not a mapping; its fields are scaleUp, scaleDown",
    );
}

#[test]
fn a_typo_is_answered_with_the_field_that_was_meant() {
    check(
        "minReplica: 2",
        "line 2: minReplica is not a field here; did you mean `minReplicas`?",
    );
    check(
        "mode: Auto",
        "line 2: mode: `Auto` is not known; did you mean `auto`?",
    );
    check(
        "behavior: {scaleUp: {stabilisationWindowSeconds: 5}}",
        "line 2: behavior.scaleUp.stabilisationWindowSeconds is not a field here; did you mean `stabilizationWindowSeconds`?",
    );
    check(
        "metrics:\n  - {type: requestRate, perSecond: 5, averageValue: 3}",
        "line 3: metrics[0].averageValue is not a field here; the fields are type, perSecond",
    );
    check(
        "mode: [a]",
        "line 2: mode: a list is not known; write one of observe, auto, scaleUpOnly, proactive, reactive",
    );
}

#[test]
fn what_this_version_does_not_have_is_refused_by_name() {
    for field in [
        "schedule: []",
        "floors: x",
        "onMissing: hold",
        "spec: {}",
        "kind: PredictiveScaler",
    ] {
        let (name, _value) = field.split_once(':').expect("a field");
        check(
            field,
            &format!("line 2: {name} is not available in this version yet; remove it"),
        );
    }
    check(
        "prediction: {costRatio: 0}",
        "line 2: prediction.costRatio: 0 is out of range (1 <= costRatio <= 10000); write for example 50",
    );
    check(
        "dataPath: passiv",
        "line 2: dataPath: `passiv` is not known; did you mean `passive`?",
    );
    check(
        "dataPath: mirror",
        "line 2: dataPath: `mirror` is not known; write one of proxy, passive",
    );
    check(
        "metrics: [{type: kvCache, averageUtilization: 80}]",
        "line 2: metrics[0].type: `kvCache` is not available in this version yet; write one of gpu, requestRate, concurrency",
    );
}

#[test]
fn fields_that_contradict_each_other_are_refused() {
    check(
        "metrics:\n  - {type: gpu, averageUtilization: 60}\n  - {type: gpu, averageUtilization: 70}",
        "line 4: metrics[1]: contradicts metrics[0], which has the same type (gpu); keep one",
    );
    check(
        "maxReplicas: 12",
        "line 2: maxReplicas is given twice, first in line 1; keep one",
    );
    check(
        "mode: scaleUpOnly\nbehavior: {scaleUp: {selectPolicy: Disabled}}",
        "line 3: behavior.scaleUp: contradicts mode: scaleUpOnly, together nothing would ever be scaled; write mode: observe",
    );
}

#[test]
fn all_problems_come_in_one_go_in_reading_order() {
    let problems = refusal(
        "mode: autos
minReplicas: 5
metrics:
  - {type: gpu}
  - {type: latency, percentile: 95, milliseconds: 300}
  - perSecond: 4
prediction: {quantile: 40, leedTime: auto}
",
    );
    let expected = [
        "line 1: mode: `autos` is not known; did you mean `auto`?",
        "line 1: maxReplicas is missing; say how many replicas may be paid for, for example maxReplicas: 10",
        "line 4: metrics[0].averageUtilization is missing; type gpu needs it, for example averageUtilization: 60",
        "line 5: metrics[1].type: `latency` is not available in this version yet; write one of gpu, requestRate, concurrency",
        "line 6: metrics[2].type is missing; write for example type: concurrency",
        "line 7: prediction.quantile: 40 is out of range (50 < quantile < 100); write for example 95",
        "line 7: prediction.leedTime is not a field here; did you mean `leadTime`?",
    ];
    let sorted = |lines: &[String]| {
        let mut lines = lines.to_vec();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&problems), sorted(&expected.map(str::to_owned)));
    let lines: Vec<_> = problems.iter().map(|line| &line[..6]).collect();
    assert!(lines.is_sorted(), "{problems:?}");
}

#[test]
fn what_is_no_yaml_is_told_from_what_is_no_policy() {
    for text in ["maxReplicas: [", "a: 1\n---\nb: 2\n"] {
        let error = read(text).expect_err(text);
        assert!(matches!(error, PolicyError::Syntax(_)), "{error:?}");
    }
    assert_eq!(refusal("just words").len(), 1);
}

#[test]
fn a_policy_shows_itself_whole() {
    let mut policy = Policy::with_bounds(1, 10);
    policy.prediction.max_ahead = Some(0.5);
    let yaml = policy.to_yaml();
    for line in [
        "mode: observe",
        "dataPath: proxy",
        "maxReplicas: 10",
        "quantile: 95",
        "costRatio: 50",
        "maxAhead: 50%",
    ] {
        assert!(yaml.contains(line), "{yaml}");
    }
}

prop_compose! {
    fn rules()(
        window in 0_u64..=3_600,
        select in prop_oneof![Just(SelectPolicy::Max), Just(SelectPolicy::Min), Just(SelectPolicy::Disabled)],
        policies in prop::collection::vec((any::<bool>(), 1_u32..1_000, 1_u64..=1_800), 0..4),
        tolerance in 0_u32..=1_000,
    ) -> ScalingRules {
        ScalingRules {
            stabilization_window: Duration::from_secs(window),
            select,
            policies: policies.into_iter().map(|(pods, value, secs)| ScalingPolicy {
                kind: if pods { ScalingPolicyKind::Pods } else { ScalingPolicyKind::Percent },
                value,
                period: Duration::from_secs(secs),
            }).collect(),
            tolerance: f64::from(tolerance) / 1_000.0,
        }
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "(?s).{0,200}") {
        drop(read(&text));
    }

    #[test]
    fn no_text_that_looks_like_a_policy_makes_the_reader_panic(
        text in "((maxReplicas|mode|metrics|type|quantile|leadTime|behavior|policies|x)(: |:\n  |, )|- |[0-9.e%-]{1,6}|[\\[\\]{}&*!|>'\"#?~\n ]){0,40}"
    ) {
        drop(read(&text));
    }

    #[test]
    fn what_is_shown_reads_back_the_same(
        (min, more) in (1_u32..50, 0_u32..50),
        mode in prop_oneof![Just(Mode::Observe), Just(Mode::Auto), Just(Mode::Proactive), Just(Mode::Reactive)],
        data_path in prop_oneof![Just(DataPath::Proxy), Just(DataPath::Passive)],
        (quantile, ahead) in (501_u32..1_000, prop::option::of(1_u32..5_000)),
        cost_ratio in 1_u32..=10_000,
        lead_time in prop::option::of(1_u64..=21_600),
        target in prop::option::of("[a-z0-9]([-a-z0-9]{0,10}[a-z0-9])?"),
        (scale_up, scale_down) in (rules(), rules()),
    ) {
        let policy = Policy {
            target: target.map(|name| Target { name }),
            mode,
            data_path,
            prediction: Prediction {
                quantile: f64::from(quantile) / 10.0 / 100.0,
                lead_time: lead_time.map_or(LeadTime::Auto, |secs| LeadTime::Fixed(Duration::from_secs(secs))),
                cost_ratio: f64::from(cost_ratio),
                max_ahead: ahead.map(|percent| f64::from(percent) / 100.0),
                ..Prediction::default()
            },
            behavior: Behavior { scale_up, scale_down },
            ..Policy::with_bounds(min, min + more)
        };
        let yaml = policy.to_yaml();
        prop_assert_eq!(read(&yaml).map_err(|error| error.to_string()), Ok(policy), "{}", yaml);
    }
}
