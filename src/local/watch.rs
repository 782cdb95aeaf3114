//! Watches: the changes after a version as a stream of lines, until a time, an error, or the client ends it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::answer::{Body, Unavailable};
use super::faults::Faults;
use super::json::set;
use super::kind::Kind;
use super::refusal::Refusal;
use super::selector::Selector;
use super::store::{Change, Objects, Store};
use super::target::{Place, Query};
use crate::clock::{Clock, Instant};

/// How long a watch lasts whose client names no time. The real server draws between 30 and 60 minutes.
const DEFAULT_SECS: u64 = 1_800;

/// Time between two bookmarks, as the real server has it: often enough that a watch that was cut off seldom has to list.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// One watch.
#[derive(Debug)]
pub(super) struct Feed {
    store: Arc<Store>,
    changes: watch::Receiver<u64>,
    available: watch::Receiver<bool>,
    clock: Clock,
    kind: Kind,
    /// Empty for all namespaces.
    namespace: String,
    name: String,
    selector: Selector,
    /// The version up to which everything has been sent.
    cursor: u64,
    lines: VecDeque<Bytes>,
    bookmarks: bool,
    next_bookmark: Instant,
    end: Instant,
    over: bool,
}

/// Why a watch that had nothing to send goes on.
enum Wake {
    Changed,
    Bookmark,
    End,
    Unavailable,
}

// === impl Feed ===

impl Feed {
    /// Starts a watch on what `place`, `selector` and the query's `resourceVersion` say.
    pub(super) fn open(
        store: &Arc<Store>,
        clock: &Clock,
        faults: &Faults,
        place: &Place,
        selector: Selector,
        query: &Query,
    ) -> Result<Self, Refusal> {
        let after = query.number("resourceVersion")?.unwrap_or(0);
        let secs = query.number("timeoutSeconds")?.filter(|secs| *secs > 0);
        let start = clock.instant();
        let mut feed = Self {
            changes: store.changes(),
            store: Arc::clone(store),
            available: faults.available(),
            clock: clock.clone(),
            kind: place.kind,
            namespace: place.namespace.clone(),
            name: place.name.clone(),
            selector,
            cursor: after,
            lines: VecDeque::new(),
            bookmarks: query.flag("allowWatchBookmarks"),
            next_bookmark: start + BOOKMARK_EVERY,
            end: start + Duration::from_secs(secs.unwrap_or(DEFAULT_SECS)),
            over: false,
        };
        let streams_list = query.flag("sendInitialEvents");
        if after == 0 || streams_list {
            let store = Arc::clone(&feed.store);
            store.transact(|objects| feed.send_present(objects, streams_list));
        }
        Ok(feed)
    }

    /// The watch as the body of its answer.
    pub(super) fn into_body(self) -> Body {
        let lines = stream::unfold(self, |mut feed| async move {
            let line = feed.next().await?;
            Some((line.map(Frame::data), feed))
        });
        StreamBody::new(lines).boxed_unsync()
    }

    /// The next line; nothing when the watch is over.
    async fn next(&mut self) -> Option<Result<Bytes, Unavailable>> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(Ok(line));
            }
            if self.over {
                return None;
            }
            self.changes.mark_unchanged();
            self.read_changes();
            if !self.lines.is_empty() {
                continue;
            }
            match self.wait().await {
                Wake::Changed => {}
                Wake::Bookmark => self.send_bookmark(false),
                Wake::End => {
                    self.over = true;
                    self.send_bookmark(false);
                }
                Wake::Unavailable => {
                    self.over = true;
                    return Some(Err(Unavailable));
                }
            }
        }
    }

    async fn wait(&mut self) -> Wake {
        tokio::select! {
            _ = self.available.wait_for(|available| !available) => Wake::Unavailable,
            changed = self.changes.changed() => changed.map_or(Wake::End, |()| Wake::Changed),
            () = self.clock.sleep_until(self.end) => Wake::End,
            () = self.clock.sleep_until(self.next_bookmark) => Wake::Bookmark,
        }
    }

    /// Queues an ADDED for everything there is now, and where the client asks for it the bookmark that ends the list.
    fn send_present(&mut self, objects: &Objects, streams_list: bool) {
        let namespace = Some(self.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        let present: Vec<Arc<Value>> = objects
            .of(self.kind, namespace)
            .filter(|(key, object)| self.wants(&key.name, object))
            .map(|(_key, object)| Arc::clone(object))
            .collect();
        for object in present {
            self.send("ADDED", &object);
        }
        self.cursor = objects.version();
        if streams_list {
            self.send_bookmark(true);
        }
    }

    /// Queues a line for every change since the last one read.
    fn read_changes(&mut self) {
        let store = Arc::clone(&self.store);
        store.transact(|objects| {
            match objects.since(self.cursor) {
                Ok(changes) => {
                    for change in changes {
                        self.send_change(change);
                    }
                    // A watch that starts in the future has seen nothing until then.
                    self.cursor = self.cursor.max(objects.version());
                }
                Err(expired) => {
                    self.send("ERROR", &expired.status());
                    self.over = true;
                }
            }
        });
    }

    /// A change shows as what it is to this watch's selection: an object that leaves it is deleted.
    fn send_change(&mut self, change: &Change) {
        let key = &change.key;
        let elsewhere = !self.namespace.is_empty() && key.namespace != self.namespace;
        if key.kind != self.kind || elsewhere {
            return;
        }
        let was = change
            .before
            .as_ref()
            .filter(|before| self.wants(&key.name, before));
        let is = !change.deleted && self.wants(&key.name, &change.object);
        match (was, is) {
            (None, true) => self.send("ADDED", &change.object),
            (Some(_), true) => self.send("MODIFIED", &change.object),
            (Some(_), false) if change.deleted => self.send("DELETED", &change.object),
            (Some(before), false) => {
                let mut last = Value::clone(before);
                let version = change.version.to_string();
                set(&mut last, &["metadata", "resourceVersion"], version.into());
                self.send("DELETED", &last);
            }
            (None, false) => {}
        }
    }

    fn wants(&self, name: &str, object: &Value) -> bool {
        (self.name.is_empty() || self.name == name) && self.selector.matches(object)
    }

    fn send_bookmark(&mut self, ends_list: bool) {
        self.next_bookmark = self.clock.instant() + BOOKMARK_EVERY;
        if !self.bookmarks && !ends_list {
            return;
        }
        let mut mark = json!({"metadata": {"resourceVersion": self.cursor.to_string()}});
        self.kind.name_type(&mut mark);
        if ends_list {
            let path = ["metadata", "annotations", "k8s.io/initial-events-end"];
            set(&mut mark, &path, "true".into());
        }
        self.send("BOOKMARK", &mark);
    }

    fn send(&mut self, event: &str, object: &Value) {
        let mut line = json!({"type": event, "object": object}).to_string();
        line.push('\n');
        self.lines.push_back(line.into());
    }
}
