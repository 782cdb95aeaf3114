//! The garbage collector: what all of its owners have left, and what is in a namespace that is gone.

use std::collections::BTreeSet;

use super::Turn;
use crate::local::delete::{self, Wish, owners};
use crate::local::json::{elements, has, text};
use crate::local::kind::Kind;
use crate::local::store::{Key, Objects};

/// Deletes it. In the background always: an owner does not wait for what it owns.
pub(super) fn sweep(objects: &mut Objects, turn: &Turn) {
    let uids: BTreeSet<&str> = objects
        .all()
        .map(|(_key, object)| text(object, "/metadata/uid"))
        .collect();
    let garbage: Vec<Key> = objects
        .all()
        .filter(|(key, object)| {
            let abandoned = !elements(object, "/metadata/ownerReferences").is_empty()
                && !owners(object).any(|owner| uids.contains(owner));
            let homeless = key.kind.facts().namespaced
                && objects
                    .get(&Key::new(Kind::Namespace, "", &key.namespace))
                    .is_none();
            (abandoned || homeless) && !has(object, "/metadata/deletionTimestamp")
        })
        .map(|(key, _object)| key.clone())
        .collect();
    for key in garbage {
        let done = delete::delete(objects, &key, &Wish::default(), turn.now, &turn.writer);
        super::log(&key, done.map(|_deleted| ()));
    }
}
