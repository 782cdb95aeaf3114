//! Where a scenario runs: a namespace of its own, on the embedded cluster or on a real one.

use kube::api::{Api, PatchParams};
use kube::core::Status;
use kube::{Client, Error};
use serde_json::Value;
use sidescale::clock::Clock;

/// A namespace on a server.
pub(crate) struct Place {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    /// The time that the server's controllers, and so its kubelets, live in.
    pub(crate) clock: Clock,
}

impl Place {
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

/// An object of a well-formed text.
pub(crate) fn read<T: serde::de::DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).expect("the object is well-formed")
}

/// The refusal that the server must have answered with.
pub(crate) fn refusal<T: std::fmt::Debug>(answer: Result<T, Error>) -> Box<Status> {
    let error = answer.expect_err("the server refuses this");
    let Error::Api(status) = error else {
        panic!("no refusal but {error}");
    };
    status
}

/// The parameters of a patch by this field manager.
pub(crate) fn merge(manager: &str) -> PatchParams {
    PatchParams {
        field_manager: Some(manager.to_owned()),
        ..PatchParams::default()
    }
}
