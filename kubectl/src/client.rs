//! The cluster that the flags and the kubeconfig name.

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Config, Resource};
use serde::de::DeserializeOwned;

use crate::args::Global;
use crate::error::Error;

/// A connection.
pub(crate) struct Cluster {
    /// The client.
    pub(crate) client: Client,
    /// The namespace that is meant.
    pub(crate) namespace: String,
}

impl Cluster {
    /// By the flags.
    pub(crate) async fn connect(global: &Global) -> Result<Self, Error> {
        let options = KubeConfigOptions { context: global.context.clone(), ..KubeConfigOptions::default() };
        let failed = |error: kube::config::KubeconfigError| Error::Config(error.to_string());
        let mut config = match &global.kubeconfig {
            Some(file) => {
                let read = Kubeconfig::read_from(file).map_err(failed)?;
                Config::from_custom_kubeconfig(read, &options).await.map_err(failed)?
            }
            None => Config::from_kubeconfig(&options).await.map_err(failed)?,
        };
        if let Some(user) = &global.impersonate {
            config.auth_info.impersonate = Some(user.clone());
        }
        let namespace = global.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| Error::Config(error.to_string()))?;
        Ok(Self { client, namespace })
    }

    /// Who we are to the API server; None where it does not say. The audit log of a node names who asked.
    pub(crate) async fn user(&self) -> Option<String> {
        let api: Api<SelfSubjectReview> = Api::all(self.client.clone());
        let review = api.create(&PostParams::default(), &SelfSubjectReview::default()).await.ok()?;
        review.status?.user_info?.username.filter(|name| !name.is_empty())
    }

    /// Objects of the namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Objects of all namespaces.
    pub(crate) fn all<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        Api::all(self.client.clone())
    }
}

/// An error of the API server; one about a kind that it does not know says what is missing.
pub(crate) fn failed(action: impl Into<String>, kind: &'static str) -> impl FnOnce(kube::Error) -> Error {
    let action = action.into();
    move |error| match &error {
        kube::Error::Api(status) if status.code == 404 && status.message.contains("page not found") => {
            Error::NotInstalled(kind)
        }
        _ => Error::api(action)(error),
    }
}
