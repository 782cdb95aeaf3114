//! What the verbs promise: versions, generations, subresources and their preconditions.

use super::*;
use crate::local::store::WINDOW;

const NAMESPACE: &str = "default";

fn writer(subresource: &'static str) -> Writer {
    Writer {
        manager: "test".to_owned(),
        subresource,
        time: "2026-01-01T00:00:00Z".to_owned(),
    }
}

fn objects() -> Objects {
    let mut objects = Objects::new(1, WINDOW);
    let namespace = json!({"metadata": {"name": NAMESPACE}});
    create(&mut objects, Kind::Namespace, "", namespace, &writer("")).expect("it is the first");
    objects
}

fn deployment() -> Value {
    json!({"metadata": {"name": "web"}, "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "x"}]},
        },
    }})
}

fn made(objects: &mut Objects, kind: Kind, object: Value) -> (Key, Arc<Value>) {
    let made = create(objects, kind, NAMESPACE, object, &writer("")).expect("it is valid and new");
    (Key::of(kind, &made), made)
}

fn patch(
    objects: &mut Objects,
    key: &Key,
    part: Part,
    patch: Value,
) -> Result<Arc<Value>, Refusal> {
    let change = Change::Patch(Style::Merge, patch);
    let subresource = match part {
        Part::Object => "",
        Part::Status => "status",
        Part::Scale => "scale",
    };
    write(objects, key, part, change, &writer(subresource))
}

fn generation(object: &Value) -> Option<i64> {
    number(object, "/metadata/generation")
}

#[test]
fn of_two_writes_on_one_version_one_wins() {
    let mut objects = objects();
    let lease = json!({"metadata": {"name": "x"}, "spec": {"holderIdentity": "a"}});
    let (key, read) = made(&mut objects, Kind::Lease, lease);
    let mut take = |holder: &str| {
        let mut mine = Value::clone(&read);
        set(&mut mine, &["spec", "holderIdentity"], holder.into());
        write(
            &mut objects,
            &key,
            Part::Object,
            Change::Replace(mine),
            &writer(""),
        )
    };
    assert_eq!(
        take("b").map(|lease| text(&lease, "/spec/holderIdentity").to_owned()),
        Ok("b".to_owned())
    );
    assert_eq!(take("c"), Err(Refusal::stale(Kind::Lease, "x")));
}

#[test]
fn a_write_that_changes_nothing_makes_no_version() {
    let mut objects = objects();
    let (key, read) = made(&mut objects, Kind::Deployment, deployment());
    let version = objects.version();
    for (part, body) in [
        (Part::Scale, json!({"spec": {"replicas": 2}})),
        (Part::Object, json!({"spec": {"paused": null}})),
        (Part::Status, json!({"status": {}})),
    ] {
        let again = patch(&mut objects, &key, part, body).expect("it is allowed");
        assert_eq!(again, read);
    }
    assert_eq!(objects.version(), version);
}

#[test]
fn the_generation_counts_changes_of_the_spec_alone() {
    let mut objects = objects();
    let (key, _) = made(&mut objects, Kind::Deployment, deployment());
    let mut step = |part, body, expected| {
        let after = patch(&mut objects, &key, part, body).expect("it is allowed");
        assert_eq!(generation(&after), Some(expected));
        after
    };
    let stamp = json!({"metadata": {"annotations": {"sidescale.dev/term": "3"}}});
    let stamped = step(Part::Status, stamp, 1);
    assert_eq!(
        stamped.pointer("/metadata/annotations"),
        Some(&json!({"sidescale.dev/term": "3"}))
    );
    step(Part::Status, json!({"status": {"replicas": 2}}), 1);
    step(Part::Scale, json!({"spec": {"replicas": 5}}), 2);
    step(Part::Object, json!({"metadata": {"labels": {"a": "b"}}}), 2);
    // A Deployment's controller reads its annotations, so that these count too.
    step(
        Part::Object,
        json!({"metadata": {"annotations": {"a": "b"}}}),
        3,
    );
}

#[test]
fn a_subresource_writes_its_own_part() {
    let mut objects = objects();
    let (key, _) = made(&mut objects, Kind::Deployment, deployment());
    let body = json!({
        "metadata": {"labels": {"l": "1"}},
        "spec": {"replicas": 7},
        "status": {"replicas": 9},
    });
    let by_status = patch(&mut objects, &key, Part::Status, body.clone()).expect("it is allowed");
    assert_eq!(number(&by_status, "/spec/replicas"), Some(2));
    assert_eq!(number(&by_status, "/status/replicas"), Some(9));
    assert!(!has(&by_status, "/metadata/labels"));
    let status = json!({"status": {"replicas": 1}, "spec": {"replicas": 7}});
    let by_object = patch(&mut objects, &key, Part::Object, status).expect("it is allowed");
    assert_eq!(number(&by_object, "/spec/replicas"), Some(7));
    assert_eq!(number(&by_object, "/status/replicas"), Some(9));
}

#[test]
fn a_scale_is_fenced_by_version_and_uid() {
    let mut objects = objects();
    let (key, first) = made(&mut objects, Kind::Deployment, deployment());
    let version = text(&first, "/metadata/resourceVersion").to_owned();
    let uid = text(&first, "/metadata/uid").to_owned();
    let scale = |version: &str, uid: &str| json!({"metadata": {"resourceVersion": version, "uid": uid}, "spec": {"replicas": 4}});
    let stamp = json!({"metadata": {"annotations": {"sidescale.dev/term": "2"}}});
    patch(&mut objects, &key, Part::Status, stamp).expect("it is allowed");
    assert_eq!(
        patch(&mut objects, &key, Part::Scale, scale(&version, &uid)),
        Err(Refusal::stale(Kind::Deployment, "web"))
    );
    let present = objects.version().to_string();
    let other = patch(&mut objects, &key, Part::Scale, scale(&present, "other"));
    assert_eq!(
        other.expect_err("the uid is another's").to_string(),
        format!(
            "Operation cannot be fulfilled on deployments/scale.apps \"web\": Precondition failed: UID in \
             precondition: other, UID in object meta: {uid}"
        )
    );
    let written = patch(&mut objects, &key, Part::Scale, scale(&present, &uid)).expect("both hold");
    assert_eq!(number(&written, "/spec/replicas"), Some(4));
    let owner = elements(&written, "/metadata/managedFields")
        .iter()
        .find(|entry| text(entry, "/subresource") == "scale")
        .map(|entry| entry["fieldsV1"].clone());
    assert_eq!(owner, Some(json!({"f:spec": {"f:replicas": {}}})));
    let below = patch(
        &mut objects,
        &key,
        Part::Scale,
        json!({"spec": {"replicas": -3}}),
    );
    assert_eq!(
        below.expect_err("a pod cannot be owed").to_string(),
        "Scale.autoscaling \"web\" is invalid: spec.replicas: Invalid value: -3: must be greater than or equal to 0"
    );
}

#[test]
fn what_is_of_a_wrong_type_is_refused_and_not_kept() {
    let mut objects = objects();
    let (key, before) = made(&mut objects, Kind::Deployment, deployment());
    for body in [
        json!({"spec": {"replicas": "a"}}),
        json!({"spec": "none"}),
        json!({"spec": {"template": []}}),
        json!({"metadata": {"labels": 3}}),
    ] {
        let refused = patch(&mut objects, &key, Part::Object, body.clone());
        assert!(matches!(refused, Err(Refusal::BadRequest(_))), "{body}");
    }
    assert_eq!(objects.get(&key), Some(&before));
    let spec = json!({"metadata": {"name": "y"}, "spec": "none"});
    assert!(create(&mut objects, Kind::Deployment, NAMESPACE, spec, &writer("")).is_err());
}

#[test]
fn the_last_finalizer_lets_a_deleted_object_go() {
    let mut objects = objects();
    let held = json!({"metadata": {"name": "cm", "finalizers": ["a.b/c"]}});
    let (key, _) = made(&mut objects, Kind::ConfigMap, held);
    let now = crate::clock::Timestamp::from_secs(9);
    let wish = crate::local::delete::Wish::default();
    crate::local::delete::delete(&mut objects, &key, &wish, now, &writer("")).expect("it is there");
    assert_eq!(
        objects
            .get(&key)
            .map(|held| text(held, "/metadata/deletionTimestamp")),
        Some("1970-01-01T00:00:09Z")
    );
    let free = json!({"metadata": {"finalizers": null}});
    patch(&mut objects, &key, Part::Object, free).expect("it is allowed");
    assert_eq!(objects.get(&key), None);
}

#[test]
fn the_same_seed_makes_the_same_names() {
    let names = || {
        let mut objects = objects();
        (0..3)
            .map(|_| {
                let (key, made) = made(
                    &mut objects,
                    Kind::ConfigMap,
                    json!({"metadata": {"generateName": "g-"}}),
                );
                (key.name, text(&made, "/metadata/uid").to_owned())
            })
            .collect::<Vec<_>>()
    };
    let first = names();
    assert_eq!(first, names());
    let (name, uid) = &first[0];
    assert!(name.starts_with("g-") && name.len() == 7, "{name}");
    assert!(uid.len() == 36 && uid.as_bytes()[14] == b'4', "{uid}");
}
