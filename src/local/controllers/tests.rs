//! What the controllers promise, turn by turn, without a clock.

use serde_json::json;

use super::*;
use crate::local::delete::{self, Wish};
use crate::local::json::number;
use crate::local::store::WINDOW;
use crate::local::verbs::Change;

struct World {
    objects: Objects,
    now: Timestamp,
}

impl World {
    fn new(replicas: i64) -> Self {
        let mut world = Self {
            objects: Objects::new(3, WINDOW),
            now: Timestamp::from_secs(1_000_000),
        };
        let writer = world.writer();
        let namespace = json!({"metadata": {"name": "default"}});
        verbs::create(&mut world.objects, Kind::Namespace, "", namespace, &writer)
            .expect("it is the first");
        let deployment = json!({"metadata": {"name": "web"}, "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "1"}]},
            },
        }});
        verbs::create(
            &mut world.objects,
            Kind::Deployment,
            "default",
            deployment,
            &writer,
        )
        .expect("it is valid");
        world.turn();
        world
    }

    fn writer(&self) -> Writer {
        Writer {
            manager: "test".to_owned(),
            subresource: "",
            time: crate::local::rfc3339(self.now),
        }
    }

    fn turn(&mut self) -> Option<Timestamp> {
        take_turn(&mut self.objects, self.now)
    }

    fn names(&self, kind: Kind) -> Vec<String> {
        self.objects
            .of(kind, None)
            .filter(|(_key, object)| !has(object, "/metadata/deletionTimestamp"))
            .map(|(key, _object)| key.name.clone())
            .collect()
    }

    fn deployment(&self) -> &Value {
        self.objects
            .get(&Key::new(Kind::Deployment, "default", "web"))
            .expect("the deployment is there")
    }

    fn patch(&mut self, kind: Kind, name: &str, part: Part, patch: Value) {
        let key = Key::new(kind, "default", name);
        let change = Change::Patch(crate::local::merge::Style::Merge, patch);
        let writer = self.writer();
        verbs::write(&mut self.objects, &key, part, change, &writer).expect("the patch is valid");
    }

    /// As a kubelet does: the pod is bound and running, and ready or not since now.
    fn run(&mut self, name: &str, node: &str, ready: bool) {
        let key = Key::new(Kind::Pod, "default", name);
        let writer = self.writer();
        let pod = self.objects.get(&key).expect("the pod is there");
        if text(pod, "/spec/nodeName").is_empty() {
            let binding = json!({"target": {"name": node}});
            verbs::bind(&mut self.objects, &key, &binding, &writer).expect("it has no node");
        }
        let ready = if ready { "True" } else { "False" };
        let condition =
            json!({"type": "Ready", "status": ready, "lastTransitionTime": writer.time});
        let status = json!({"phase": "Running", "conditions": [condition]});
        self.patch(Kind::Pod, name, Part::Status, json!({"status": status}));
    }

    fn scale(&mut self, replicas: i64) {
        self.patch(
            Kind::Deployment,
            "web",
            Part::Scale,
            json!({"spec": {"replicas": replicas}}),
        );
        self.turn();
    }

    fn pass(&mut self, secs: u64) {
        self.now = self.now + Duration::from_secs(secs);
    }
}

#[test]
fn a_deployment_has_its_set_its_pods_and_its_status() {
    let mut world = World::new(3);
    let sets = world.names(Kind::ReplicaSet);
    let pods = world.names(Kind::Pod);
    assert_eq!((sets.len(), pods.len()), (1, 3));
    assert!(
        pods.iter()
            .all(|pod| pod.starts_with(&format!("{}-", sets[0])))
    );
    let status = |world: &World| world.deployment()["status"].clone();
    assert_eq!(number(&status(&world), "/unavailableReplicas"), Some(3));
    for pod in &pods {
        world.run(pod, "n", true);
    }
    world.turn();
    assert_eq!(number(&status(&world), "/readyReplicas"), Some(3));
    assert_eq!(number(&status(&world), "/availableReplicas"), Some(3));
    assert!(!has(&status(&world), "/unavailableReplicas"));
    let reasons: Vec<&str> = elements(&world.deployment()["status"], "/conditions")
        .iter()
        .map(|condition| text(condition, "/reason"))
        .collect();
    assert_eq!(
        reasons,
        ["MinimumReplicasAvailable", "NewReplicaSetAvailable"]
    );
}

#[test]
fn a_world_at_rest_stays_as_it_is() {
    let mut world = World::new(3);
    let version = world.objects.version();
    world.pass(3_600);
    assert_eq!(world.turn(), None);
    assert_eq!(world.objects.version(), version);
}

#[test]
fn the_unready_pod_goes_before_the_cheap_and_the_young_one() {
    let mut world = World::new(4);
    let pods = world.names(Kind::Pod);
    for (n, pod) in pods.iter().enumerate() {
        world.run(pod, &format!("n{n}"), true);
        world.pass(10_000);
    }
    let cost =
        json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5"}}});
    world.patch(Kind::Pod, &pods[1], Part::Object, cost);
    world.run(&pods[2], "n2", false);
    world.turn();
    let mut left = pods.clone();
    // The unready one first, then the cheap one, then the one that turned ready last.
    for (size, victim) in [(3, &pods[2]), (2, &pods[1]), (1, &pods[3])] {
        world.scale(size);
        left.retain(|pod| pod != victim);
        assert_eq!(world.names(Kind::Pod), left, "after scaling to {size}");
    }
}

#[test]
fn a_pod_without_a_node_goes_before_one_that_runs() {
    let mut world = World::new(2);
    let pods = world.names(Kind::Pod);
    world.run(&pods[0], "n", false);
    world.scale(1);
    assert_eq!(world.names(Kind::Pod), pods[..1]);
}

#[test]
fn a_pod_is_available_only_after_its_minimum_of_ready_time() {
    let mut world = World::new(1);
    let patch = json!({"spec": {"minReadySeconds": 30}});
    let set = world.names(Kind::ReplicaSet)[0].clone();
    world.patch(Kind::ReplicaSet, &set, Part::Object, patch);
    let pod = world.names(Kind::Pod)[0].clone();
    world.run(&pod, "n", true);
    let due = world.now + Duration::from_secs(30);
    assert_eq!(world.turn(), Some(due));
    assert!(!has(world.deployment(), "/status/availableReplicas"));
    world.pass(30);
    assert_eq!(world.turn(), None);
    assert_eq!(
        number(world.deployment(), "/status/availableReplicas"),
        Some(1)
    );
}

#[test]
fn a_new_template_replaces_the_pods_step_by_step() {
    let mut world = World::new(4);
    for pod in world.names(Kind::Pod) {
        world.run(&pod, "n", true);
    }
    world.turn();
    let old = world.names(Kind::ReplicaSet)[0].clone();
    let image =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "2"}]}}}});
    world.patch(Kind::Deployment, "web", Part::Object, image);
    for _step in 0..10 {
        world.turn();
        let pods = world.names(Kind::Pod);
        assert!((3..=5).contains(&pods.len()), "{} pods", pods.len());
        // The kubelet: what is ending goes, what is there gets ready.
        let ending: Vec<Key> = world
            .objects
            .of(Kind::Pod, None)
            .filter(|(_key, pod)| has(pod, "/metadata/deletionTimestamp"))
            .map(|(key, _pod)| key.clone())
            .collect();
        for key in ending {
            world.objects.remove(&key);
        }
        for pod in pods {
            world.run(&pod, "n", true);
        }
    }
    let new: Vec<String> = world.names(Kind::Pod);
    assert_eq!(new.len(), 4);
    assert!(new.iter().all(|pod| !pod.starts_with(&old)));
    assert_eq!(
        number(world.deployment(), "/status/updatedReplicas"),
        Some(4)
    );
    let revision = |object: &Value| {
        object["metadata"]["annotations"]["deployment.kubernetes.io/revision"].clone()
    };
    assert_eq!(revision(world.deployment()), json!("2"));
}

#[test]
fn what_a_deleted_deployment_owned_goes_with_it() {
    let mut world = World::new(2);
    let bound = world.names(Kind::Pod)[0].clone();
    world.run(&bound, "n", true);
    let key = Key::new(Kind::Deployment, "default", "web");
    let (now, writer) = (world.now, world.writer());
    delete::delete(&mut world.objects, &key, &Wish::default(), now, &writer).expect("it is there");
    world.turn();
    assert_eq!(world.names(Kind::ReplicaSet), Vec::<String>::new());
    let left: Vec<&str> = world
        .objects
        .of(Kind::Pod, None)
        .map(|(key, _pod)| key.name.as_str())
        .collect();
    assert_eq!(left, [bound], "the pod that runs has its grace period");
}

#[tokio::test(start_paused = true)]
async fn controllers_stand_still_while_the_server_is_away() {
    let world = World::new(2);
    let store = Arc::new(Store::new(world.objects));
    let available = watch::Sender::new(false);
    let clock = Clock::scaled(world.now, 20.0);
    let tasks = crate::lifecycle::Tasks::here();
    tasks.spawn(run(
        Arc::clone(&store),
        clock.clone(),
        available.subscribe(),
    ));
    let pods = || store.transact(|objects| objects.of(Kind::Pod, None).count());
    store.transact(|objects| {
        for (key, _pod) in living(objects, Kind::Pod) {
            objects.remove(&key);
        }
    });
    clock.sleep(Duration::from_secs(3_600)).await;
    assert_eq!(pods(), 0);
    available.send_replace(true);
    clock.sleep(Duration::from_secs(1)).await;
    assert_eq!(pods(), 2);
}
