//! The server: who asks, what for, whether they may, and the answer. The same for sockets and for clients in process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Request, Response, header};
use serde_json::Value;
use tokio::sync::oneshot;

use super::answer::{self, Body, Unavailable};
use super::delete::{self, Deleted, Wish};
use super::discovery;
use super::faults::{Action, Asked, Faults};
use super::fields::Writer;
use super::json::text;
use super::kind::Kind;
use super::merge::Style;
use super::rbac::{self, Identity};
use super::refusal::Refusal;
use super::selector::Selector;
use super::store::{Key, Objects, Store};
use super::target::{Place, Query, Target, Verb};
use super::verbs::{self, Change, Part};
use super::watch::Feed;
use crate::clock::{Clock, Timestamp};
use crate::lifecycle::TasksHandle;

/// The server of one cluster.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) store: Arc<Store>,
    pub(super) clock: Clock,
    pub(super) faults: Faults,
    tokens: Mutex<BTreeMap<String, Identity>>,
    tasks: TasksHandle,
}

/// A request on objects, taken apart.
struct Call<'a> {
    verb: Verb,
    place: &'a Place,
    query: &'a Query,
    content_type: &'a str,
    body: &'a Bytes,
    writer: Writer,
    now: Timestamp,
}

// === impl Api ===

impl Api {
    pub(super) fn new(store: Arc<Store>, clock: Clock, faults: Faults, tasks: TasksHandle) -> Self {
        Self {
            store,
            clock,
            faults,
            tokens: Mutex::default(),
            tasks,
        }
    }

    /// Makes `token` stand for `identity`; from the first one on, requests without a token are anonymous.
    pub(super) fn admit(&self, token: &str, identity: Identity) {
        self.tokens().insert(token.to_owned(), identity);
    }

    /// Makes `token` void, as that of a deleted pod is.
    pub(super) fn expel(&self, token: &str) {
        self.tokens().remove(token);
    }

    /// Answers a request. `caller` is who asks, where that is known without a token.
    pub(super) async fn answer(
        self: &Arc<Self>,
        request: Request<Bytes>,
        caller: Option<Identity>,
    ) -> Result<Response<Body>, Unavailable> {
        let available = self.faults.available();
        if !*available.borrow() {
            return Err(Unavailable);
        }
        self.count(&request);
        match self.faults.decide(&request) {
            Action::Pass => {}
            Action::Fail(code) => return Ok(answer::refusal(&Refusal::Injected(code))),
            Action::Drop => return Err(Unavailable),
            Action::Hold(gate) => {
                // In a task of its own: what lies in a socket arrives although its sender has given up on it.
                let (sender, receiver) = oneshot::channel();
                let api = Arc::clone(self);
                self.tasks.spawn(async move {
                    gate.opened().await;
                    let available = *api.faults.available().borrow();
                    let answer = available
                        .then(|| api.serve(&request, caller))
                        .ok_or(Unavailable);
                    // The sender of the request may have gone: then nobody wants the answer.
                    drop(sender.send(answer));
                });
                return receiver.await.unwrap_or(Err(Unavailable));
            }
        }
        Ok(self.serve(&request, caller))
    }

    fn serve(&self, request: &Request<Bytes>, caller: Option<Identity>) -> Response<Body> {
        self.try_serve(request, caller)
            .unwrap_or_else(|refusal| answer::refusal(&refusal))
    }

    fn try_serve(
        &self,
        request: &Request<Bytes>,
        caller: Option<Identity>,
    ) -> Result<Response<Body>, Refusal> {
        let identity = match caller {
            Some(identity) => identity,
            None => self.identify(request)?,
        };
        let place = match Target::parse(request.uri().path())? {
            Target::Server(path) => return discovery::answer(&path),
            Target::Objects(place) => place,
        };
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let now = self.clock.now().timestamp;
        let call = Call {
            verb: Verb::of(request.method(), &place, &query)?,
            place: &place,
            query: &query,
            content_type: header_of(request, &header::CONTENT_TYPE),
            body: request.body(),
            writer: writer(request, &place, &query, now),
            now,
        };
        self.store
            .transact(|objects| rbac::authorize(objects, &identity, call.verb, &call.named()))?;
        if call.verb == Verb::Watch {
            let selector = call.selector()?;
            let feed = Feed::open(
                &self.store,
                &self.clock,
                &self.faults,
                &place,
                selector,
                &query,
            )?;
            return Ok(answer::answer(200, feed.into_body()));
        }
        self.store.transact(|objects| call.run(objects))
    }

    fn identify(&self, request: &Request<Bytes>) -> Result<Identity, Refusal> {
        let tokens = self.tokens();
        if tokens.is_empty() {
            return Ok(Identity::administrator());
        }
        match header_of(request, &header::AUTHORIZATION).strip_prefix("Bearer ") {
            None => Ok(Identity::anonymous()),
            Some(token) => tokens.get(token).cloned().ok_or(Refusal::Unauthorized),
        }
    }

    fn count(&self, request: &Request<Bytes>) {
        let agent = header_of(request, &header::USER_AGENT).to_owned();
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let (verb, resource) = match Target::parse(request.uri().path()) {
            Ok(Target::Objects(place)) => (
                Verb::of(request.method(), &place, &query).map_or("", Verb::name),
                place.resource(),
            ),
            Ok(Target::Server(_)) | Err(_) => ("get", request.uri().path().to_owned()),
        };
        self.faults.count(Asked {
            agent,
            verb,
            resource,
        });
    }

    fn tokens(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Identity>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Call ===

impl Call<'_> {
    /// Does what is asked, on the objects alone.
    fn run(&self, objects: &mut Objects) -> Result<Response<Body>, Refusal> {
        match self.verb {
            Verb::Get => self.get(objects),
            Verb::List | Verb::Watch => self.list(objects),
            Verb::Create if self.place.subresource == "binding" => {
                verbs::bind(objects, &self.key(), &self.object()?, &self.writer)?;
                Ok(answer::success(201, None))
            }
            Verb::Create => {
                let place = self.place;
                let made = verbs::create(
                    objects,
                    place.kind,
                    &place.namespace,
                    self.object()?,
                    &self.writer,
                )?;
                Ok(answer::object(201, &made))
            }
            Verb::Update => self.write(objects, Change::Replace(self.object()?)),
            Verb::Patch => {
                let style = Style::of(self.content_type).ok_or(Refusal::UnsupportedPatch)?;
                self.write(objects, Change::Patch(style, self.object()?))
            }
            Verb::Delete => self.delete(objects),
            Verb::DeleteCollection => self.delete_all(objects),
        }
    }

    fn get(&self, objects: &Objects) -> Result<Response<Body>, Refusal> {
        let found = objects.find(&self.key())?;
        Ok(match self.part() {
            Part::Scale => answer::object(200, &verbs::scale_of(found)),
            Part::Object | Part::Status => answer::object(200, found),
        })
    }

    fn list(&self, objects: &Objects) -> Result<Response<Body>, Refusal> {
        let current = objects.version();
        if let Some(asked) = self
            .query
            .number("resourceVersion")?
            .filter(|asked| *asked > current)
        {
            return Err(Refusal::TooLargeVersion { asked, current });
        }
        let found = self.selected(objects)?;
        let items = found.iter().map(|(_key, object)| &**object);
        Ok(answer::list(self.place.kind, current, items))
    }

    fn write(&self, objects: &mut Objects, change: Change) -> Result<Response<Body>, Refusal> {
        let key = self.key();
        let exists = objects.get(&key).is_some();
        let part = self.part();
        let written = verbs::write(objects, &key, part, change, &self.writer)?;
        let code = if exists { 200 } else { 201 };
        Ok(match part {
            Part::Scale => answer::object(code, &verbs::scale_of(&written)),
            Part::Object | Part::Status => answer::object(code, &written),
        })
    }

    fn delete(&self, objects: &mut Objects) -> Result<Response<Body>, Refusal> {
        let key = self.key();
        let wish = self.wish()?;
        let deleted = delete::delete(objects, &key, &wish, self.now, &self.writer)?;
        Ok(match deleted {
            Deleted::Gone(last) if key.kind != Kind::Pod => {
                let facts = key.kind.facts();
                let details = serde_json::json!({
                    "name": key.name,
                    "group": facts.group,
                    "kind": facts.plural,
                    "uid": text(&last, "/metadata/uid"),
                });
                answer::success(200, Some(details))
            }
            Deleted::Gone(object) | Deleted::Ending(object) => answer::object(200, &object),
        })
    }

    fn delete_all(&self, objects: &mut Objects) -> Result<Response<Body>, Refusal> {
        let wish = self.wish()?;
        let found = self.selected(objects)?;
        for (key, _object) in &found {
            delete::delete(objects, key, &wish, self.now, &self.writer)?;
        }
        let items = found.iter().map(|(_key, object)| &**object);
        Ok(answer::list(self.place.kind, objects.version(), items))
    }

    fn selected(&self, objects: &Objects) -> Result<Vec<(Key, Arc<Value>)>, Refusal> {
        let selector = self.selector()?;
        let namespace = self.place.namespace.as_str();
        Ok(objects
            .of(
                self.place.kind,
                Some(namespace).filter(|namespace| !namespace.is_empty()),
            )
            .filter(|(_key, object)| selector.matches(object))
            .map(|(key, object)| (key.clone(), Arc::clone(object)))
            .collect())
    }

    /// The place that a right must cover: a list or a watch of the one object that the field selector names is a request
    /// for that object, so that a role with `resourceNames` allows it.
    fn named(&self) -> Place {
        let mut place = self.place.clone();
        if place.name.is_empty()
            && let Ok(selector) = self.selector()
            && let Some(name) = selector.name()
        {
            name.clone_into(&mut place.name);
        }
        place
    }

    fn selector(&self) -> Result<Selector, Refusal> {
        Selector::parse(
            self.place.kind,
            self.query.text("labelSelector"),
            self.query.text("fieldSelector"),
        )
    }

    /// The options of a deletion, from the body and, over it, from the query.
    fn wish(&self) -> Result<Wish, Refusal> {
        let mut options = if self.body.is_empty() {
            Value::Object(serde_json::Map::new())
        } else {
            self.object()?
        };
        if let Some(secs) = self.query.number("gracePeriodSeconds")? {
            options["gracePeriodSeconds"] = secs.into();
        }
        if !self.query.text("propagationPolicy").is_empty() {
            options["propagationPolicy"] = self.query.text("propagationPolicy").into();
        }
        Ok(Wish::read(&options))
    }

    fn object(&self) -> Result<Value, Refusal> {
        let json = self.content_type.is_empty() || self.content_type.contains("json");
        if !json {
            // kubectl sends some kinds as protobuf.
            return Err(Refusal::UnsupportedBody);
        }
        let object: Value = serde_json::from_slice(self.body).map_err(|error| {
            Refusal::BadRequest(format!(
                "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse \
                 error: {error}",
                self.place.kind.facts().kind
            ))
        })?;
        if object.is_object() || self.verb == Verb::Patch {
            Ok(object)
        } else {
            Err(Refusal::BadRequest(format!(
                "the object provided is unrecognized (must be of type {}): it is no JSON object",
                self.place.kind.facts().kind
            )))
        }
    }

    fn key(&self) -> Key {
        let place = self.place;
        Key::new(place.kind, &place.namespace, &place.name)
    }

    fn part(&self) -> Part {
        match self.place.subresource.as_str() {
            "status" => Part::Status,
            "scale" => Part::Scale,
            _ => Part::Object,
        }
    }
}

fn writer(request: &Request<Bytes>, place: &Place, query: &Query, now: Timestamp) -> Writer {
    let given = query.text("fieldManager");
    let agent = header_of(request, &header::USER_AGENT);
    let manager = if given.is_empty() {
        agent.split('/').next().unwrap_or_default()
    } else {
        given
    };
    Writer {
        manager: if manager.is_empty() {
            "unknown"
        } else {
            manager
        }
        .to_owned(),
        subresource: match place.subresource.as_str() {
            "status" => "status",
            "scale" => "scale",
            _ => "",
        },
        time: super::rfc3339(now),
    }
}

fn header_of<'a>(request: &'a Request<Bytes>, name: &header::HeaderName) -> &'a str {
    request
        .headers()
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}
