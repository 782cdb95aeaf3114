//! The objects, their versions, and the log of changes that watches read.
//!
//! [`Objects`] is plain data; [`Store`] shares it. Every read-modify-write runs under one lock from reading to writing,
//! so that a resourceVersion that was current at the comparison still is at the write, as etcd's transactions have it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::Value;
use tokio::sync::watch;

use super::json;
use super::kind::Kind;
use super::refusal::Refusal;

/// Changes that watches can still read. An hour of a fleet of fifty; a watch that asks for older ones gets 410 and lists
/// again. Twice as many cost only memory; with a tenth, a member that was cut off for a minute of a demo lists again.
pub(super) const WINDOW: usize = 8_192;

/// Where an object is kept. The namespace is empty for kinds that have none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) name: String,
}

/// One change of one object.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) key: Key,
    /// What was there before; nothing if the change is a creation.
    pub(super) before: Option<Arc<Value>>,
    /// What is there now, or the last state of what was deleted.
    pub(super) object: Arc<Value>,
    pub(super) deleted: bool,
}

/// All objects and the recent changes.
#[derive(Debug)]
pub(super) struct Objects {
    items: BTreeMap<Key, Arc<Value>>,
    log: VecDeque<Change>,
    window: usize,
    version: u64,
    /// For names and uids.
    pub(super) rng: StdRng,
}

/// The shared [`Objects`], and the signal that they changed.
#[derive(Debug)]
pub(super) struct Store {
    objects: Mutex<Objects>,
    version: watch::Sender<u64>,
}

// === impl Key ===

impl Key {
    pub(super) fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The key of an object that is kept.
    pub(super) fn of(kind: Kind, object: &Value) -> Self {
        Self::new(
            kind,
            json::text(object, "/metadata/namespace"),
            json::text(object, "/metadata/name"),
        )
    }
}

// === impl Objects ===

impl Objects {
    pub(super) fn new(seed: u64, window: usize) -> Self {
        Self {
            items: BTreeMap::new(),
            log: VecDeque::new(),
            window,
            // A version of 0 has a meaning of its own in requests, and 1 is what tests call "long ago".
            version: 1,
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// The version of the last change.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.items.get(key)
    }

    pub(super) fn find(&self, key: &Key) -> Result<&Arc<Value>, Refusal> {
        self.get(key)
            .ok_or_else(|| Refusal::not_found(key.kind, &key.name))
    }

    /// The objects of a kind, in the order of their names; of all namespaces if none is given.
    pub(super) fn of<'a>(
        &'a self,
        kind: Kind,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> {
        self.items
            .range(Key::new(kind, namespace.unwrap_or_default(), "")..)
            .take_while(move |(key, _object)| {
                key.kind == kind && namespace.is_none_or(|wanted| key.namespace == wanted)
            })
    }

    /// Every object of every kind.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        self.items.iter()
    }

    /// Writes the object under a new version, which it then carries.
    pub(super) fn put(&mut self, key: Key, mut object: Value) -> Arc<Value> {
        self.stamp(&mut object);
        let object = Arc::new(object);
        let before = self.items.insert(key.clone(), Arc::clone(&object));
        self.record(key, before, &object, false);
        object
    }

    /// Takes the object away. The change carries a version of its own, as watches need it.
    pub(super) fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let before = self.items.remove(key)?;
        let mut last = Value::clone(&before);
        self.stamp(&mut last);
        let last = Arc::new(last);
        self.record(key.clone(), Some(before), &last, true);
        Some(last)
    }

    /// The changes after `version`, oldest first.
    pub(super) fn since(&self, version: u64) -> Result<impl Iterator<Item = &Change>, Refusal> {
        // The log is whole from the change after `oldest` on.
        let oldest = self
            .log
            .front()
            .map_or(self.version, |change| change.version - 1);
        if version < oldest {
            return Err(Refusal::Expired {
                asked: version,
                oldest,
            });
        }
        let start = self.log.partition_point(|change| change.version <= version);
        Ok(self.log.range(start..))
    }

    fn stamp(&mut self, object: &mut Value) {
        self.version += 1;
        json::set(
            object,
            &["metadata", "resourceVersion"],
            self.version.to_string().into(),
        );
    }

    fn record(&mut self, key: Key, before: Option<Arc<Value>>, object: &Arc<Value>, deleted: bool) {
        self.log.push_back(Change {
            version: self.version,
            key,
            before,
            object: Arc::clone(object),
            deleted,
        });
        while self.log.len() > self.window {
            self.log.pop_front();
        }
    }
}

// === impl Store ===

impl Store {
    pub(super) fn new(objects: Objects) -> Self {
        let version = watch::Sender::new(objects.version());
        Self {
            objects: Mutex::new(objects),
            version,
        }
    }

    /// Runs `work` on the objects with nobody else at them, and wakes who waits for changes if there were any.
    pub(super) fn transact<T>(&self, work: impl FnOnce(&mut Objects) -> T) -> T {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut objects);
        let version = objects.version();
        // Sent under the lock, so that versions arrive in order.
        self.version.send_if_modified(|seen| {
            let moved = *seen != version;
            *seen = version;
            moved
        });
        result
    }

    /// To be woken at a change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(name: &str) -> Key {
        Key::new(Kind::ConfigMap, "default", name)
    }

    #[test]
    fn every_change_has_its_own_growing_version() {
        let mut objects = Objects::new(0, WINDOW);
        let start = objects.version();
        objects.put(key("a"), json!({"n": 1}));
        objects.put(key("a"), json!({"n": 2}));
        objects.remove(&key("a"));
        let changes: Vec<(u64, bool, bool)> = objects
            .since(start)
            .expect("the log is whole")
            .map(|change| (change.version, change.before.is_some(), change.deleted))
            .collect();
        assert_eq!(
            changes,
            [(2, false, false), (3, true, false), (4, true, true)]
        );
    }

    #[test]
    fn what_left_the_window_is_expired_and_the_rest_is_not() {
        let mut objects = Objects::new(0, 2);
        for n in 0..4 {
            objects.put(key("a"), json!({"n": n}));
        }
        // Versions 2 to 5 were written, and 4 and 5 are kept: a reader that has seen 3 misses nothing.
        assert!(matches!(
            objects.since(2).err(),
            Some(Refusal::Expired {
                asked: 2,
                oldest: 3
            })
        ));
        assert_eq!(objects.since(3).map(Iterator::count).ok(), Some(2));
        assert_eq!(objects.since(5).map(Iterator::count).ok(), Some(0));
    }

    #[test]
    fn a_namespace_is_listed_without_its_neighbours() {
        let mut objects = Objects::new(0, WINDOW);
        for (namespace, name) in [("a", "x"), ("b", "y"), ("b", "z"), ("c", "w")] {
            objects.put(Key::new(Kind::Pod, namespace, name), json!({}));
        }
        let names = |namespace| {
            objects
                .of(Kind::Pod, namespace)
                .map(|(key, _)| key.name.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(Some("b")), ["y", "z"]);
        assert_eq!(names(None).len(), 4);
    }
}
