//! The wire format, held by what its versions have written: `wire/first.jsonl` is the first one's, `wire/now.jsonl` this one's.
//!
//! Two versions of sidescale stand in one fleet while it is rolled out or upgraded, and the leader may be of either. So a
//! field keeps its name, its meaning and its type, new ones have a default, and whoever does not know an order goes on
//! without it. A field that is added changes `now.jsonl`; a line of `first.jsonl` never changes within a major version.

use serde_json::Value;

use super::*;

const FIRST: &str = include_str!("wire/first.jsonl");
const NOW: &str = include_str!("wire/now.jsonl");

/// One of each, nothing in them left at its default.
fn lines() -> (Vec<Up>, Vec<Down>) {
    (up(), down())
}

fn up() -> Vec<Up> {
    let total = Load {
        pod_seconds: 4.5,
        arrivals: 12.0,
        completions: 10.0,
        failures: 1.0,
        busy_seconds: 20.25,
        service_seconds: 18.5,
        gpu_busy_seconds: 3.5,
        gpu_observed_seconds: 4.0,
    };
    let report = Report {
        v: 1,
        pod: "llm-0".to_owned(),
        epoch: 7,
        seq: 3,
        at_millis: 4_500,
        total,
        in_flight: 1,
        load_unknown: true,
        ready: true,
        draining: false,
        gpu: Some(GpuReading {
            devices: 2,
            utilization: 0.875,
            memory_used_bytes: 60_000_000_000,
            memory_total_bytes: 80_000_000_000,
            power_watts: 350.5,
        }),
        connections: Some(5),
        follows: true,
    };
    let overrun = Report {
        seq: 4,
        at_millis: 4_600,
        load_unknown: false,
        gpu: None,
        connections: None,
        follows: false,
        ..report.clone()
    };
    let past = Past {
        start_millis: 1_700_000_000_000,
        step_seconds: 10,
        slots: vec![total],
    };
    vec![Up::Report(report), Up::Overrun(overrun), Up::Past(past)]
}

fn down() -> Vec<Down> {
    let hello = Hello {
        v: 1,
        term: 8,
        holder: "llm-1_uuid".to_owned(),
        token: "secret".to_owned(),
        past_since_millis: Some(1_700_000_000_000),
    };
    let beacon = Beacon {
        term: 8,
        holder: "llm-1_uuid".to_owned(),
        renewed: "4711".to_owned(),
        members: 3,
        standbys: vec!["llm-2_uuid".to_owned()],
        leads: 1,
        admin: "10.0.0.1:9090".to_owned(),
    };
    let goodbye = Down::Goodbye {
        successor: Some("llm-2_uuid".to_owned()),
    };
    let retire = Down::Retire {
        per_mille: 250,
        over_millis: 10_000,
    };
    let drain = Down::Drain { for_millis: 30_000 };
    let (hello, beacon) = (Down::Hello(hello), Down::Beacon(beacon));
    vec![hello, beacon, goodbye, drain, retire]
}

/// What the first version knew of these lines: it takes the rest for what is meant where nothing is said.
fn as_the_first_knew((mut up, mut down): (Vec<Up>, Vec<Down>)) -> (Vec<Up>, Vec<Down>) {
    for line in &mut up {
        if let Up::Report(report) | Up::Overrun(report) = line {
            report.load_unknown = false;
            report.connections = None;
            report.follows = false;
        }
    }
    for line in &mut down {
        if let Down::Beacon(beacon) = line {
            beacon.leads = 0;
        }
    }
    down.truncate(3);
    (up, down)
}

/// Three lines go up, the others down.
fn read(text: &str) -> (Vec<Up>, Vec<Down>) {
    let up = text.lines().take(3).map(serde_json::from_str);
    let down = text.lines().skip(3).map(serde_json::from_str);
    let (up, down): (Result<_, _>, Result<_, _>) = (up.collect(), down.collect());
    (
        up.expect("lines of a member"),
        down.expect("lines of a leader"),
    )
}

#[test]
fn what_the_first_version_wrote_means_what_it_meant() {
    assert_eq!(read(FIRST), as_the_first_knew(lines()));
}

#[test]
fn what_is_written_now_is_fixed() {
    let (up, down) = lines();
    let up = up.iter().map(serde_json::to_string);
    let down = down.iter().map(serde_json::to_string);
    let written = up.chain(down).collect::<Result<Vec<_>, _>>();
    assert_eq!(
        written.expect("it can be written"),
        NOW.lines().collect::<Vec<_>>()
    );
    assert_eq!(read(NOW), lines());
}

/// The first version reads a field by its name, as the type that it had, and takes what it does not find for its default.
#[test]
fn the_first_version_finds_its_fields_in_what_is_written_now() {
    for (first, now) in FIRST.lines().zip(NOW.lines()) {
        let [first, now] = [first, now].map(|line| serde_json::from_str(line).expect("JSON"));
        assert_holds(&now, &first);
    }
}

fn assert_holds(now: &Value, first: &Value) {
    match (now, first) {
        (Value::Object(now), Value::Object(first)) => {
            for (name, value) in first {
                assert_holds(now.get(name).unwrap_or(&Value::Null), value);
            }
        }
        (now, first) => assert_eq!(now, first),
    }
}

#[test]
fn what_a_later_version_adds_is_ignored_and_its_orders_are_no_lines_of_ours() {
    for line in NOW.lines() {
        let mut value: Value = serde_json::from_str(line).expect("JSON");
        for field in value.as_object_mut().expect("one order").values_mut() {
            let fields = field.as_object_mut().expect("it has fields");
            fields.insert("mood".to_owned(), "good".into());
        }
        let added = value.to_string();
        let is_read = |line: &str| {
            let (up, down) = (
                serde_json::from_str::<Up>(line).ok(),
                serde_json::from_str::<Down>(line).ok(),
            );
            (up, down)
        };
        assert_eq!(is_read(&added), is_read(line), "{added}");
    }
    assert!(serde_json::from_str::<Down>(r#"{"sing":{}}"#).is_err());
}
