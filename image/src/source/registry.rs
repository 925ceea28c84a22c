//! A registry, by the distribution specification: manifests and blobs over HTTPS, anonymous or with what docker's
//! `config.json` has; plain HTTP only where it is asked for.
//!
//! Blocking, like every room below the shim (ADR 5). Answers are bounded and verified by digest; what a registry says in an
//! error is shortened before anybody sees it. Credentials go to the registry they are for and to the token service that it
//! names, never along a redirect.

mod auth;
mod credentials;
mod reference;

use std::cell::RefCell;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cryopod_checkpoint::kind::Kind;
use cryopod_command::Limits;
use ureq::http::{Response, StatusCode};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

pub use reference::Reference;

use super::SourceError;
use crate::digest::Digest;
use crate::manifest::{Blobs, Descriptor, MAX_DOCUMENT, read_small};
use auth::Challenge;
use credentials::Login;

/// A registry that does not answer by then will not.
const CONNECT: Duration = Duration::from_secs(20);
/// Between two pieces of a blob; the limits of the caller bound the whole.
const SILENCE: Duration = Duration::from_secs(60);
const AGENT: &str = concat!("cryopod/", env!("CARGO_PKG_VERSION"));
/// What we can read, in the order in which we like it.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.docker.distribution.manifest.v2+json";

/// How registries are talked to.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Without TLS.
    pub plain_http: bool,
    /// Credentials in docker's form; None: `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`.
    pub auth_file: Option<PathBuf>,
}

/// One repository of a registry.
pub(super) struct Registry {
    agent: Agent,
    reference: Reference,
    base: String,
    login: Option<Login>,
    /// The header that the registry wants by now.
    authorization: RefCell<Option<String>>,
}

impl Registry {
    /// Asks for an image by its reference.
    pub(super) fn find(
        reference: &Reference,
        access: &Access,
        limits: &Limits,
    ) -> Result<(Self, Descriptor), SourceError> {
        limits.check().map_err(SourceError::Stopped)?;
        let scheme = if access.plain_http { "http" } else { "https" };
        let registry = Self {
            agent: agent(access, limits),
            base: format!("{scheme}://{}/v2/{}", reference.address(), reference.repository()),
            login: credentials::find(reference.registry(), access.auth_file.as_deref())?,
            reference: reference.clone(),
            authorization: RefCell::default(),
        };
        let wanted = reference.wanted();
        let mut answer = registry.get(&format!("{}/manifests/{wanted}", registry.base), Some(ACCEPT))?;
        let media_type =
            header(&answer, "content-type").split(';').next().unwrap_or_default().trim().to_owned();
        let mut text = Vec::new();
        let read = answer.body_mut().as_reader().take(MAX_DOCUMENT + 1).read_to_end(&mut text);
        read.map_err(|error| registry.failed("read the manifest", &error.to_string(), Kind::Unavailable))?;
        // A tag may mean something else a moment later: from here on it is this digest.
        let digest = reference.digest().copied().unwrap_or_else(|| Digest::of(&text));
        let text = read_small(&text[..], &digest, None)?;
        let descriptor = Descriptor {
            media_type,
            digest: digest.to_string(),
            size: text.len() as u64,
            ..Descriptor::default()
        };
        Ok((registry, descriptor))
    }

    /// GET that succeeds; asked for a token, it gets one and tries again, once.
    fn get(&self, url: &str, accept: Option<&str>) -> Result<Response<Body>, SourceError> {
        let answer = self.try_get(url, accept)?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return self.judged(url, answer);
        }
        let challenge = Challenge::parse(&header(&answer, "www-authenticate"));
        let challenge =
            challenge.ok_or_else(|| self.failed("log in", "it does not say how", Kind::PermissionDenied))?;
        let authorization = self.authorize(&challenge)?;
        *self.authorization.borrow_mut() = Some(authorization);
        let answer = self.try_get(url, accept)?;
        self.judged(url, answer)
    }

    fn try_get(&self, url: &str, accept: Option<&str>) -> Result<Response<Body>, SourceError> {
        let mut request = self.agent.get(url);
        if let Some(accept) = accept {
            request = request.header("accept", accept);
        }
        if let Some(authorization) = self.authorization.borrow().as_deref() {
            request = request.header("authorization", authorization);
        }
        request.call().map_err(|error| self.failed(&format!("GET {url}"), &said(&error), Kind::Unavailable))
    }

    fn judged(&self, url: &str, mut answer: Response<Body>) -> Result<Response<Body>, SourceError> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let kind = match status.as_u16() {
            401 | 403 => Kind::PermissionDenied,
            404 => Kind::NotFound,
            429 | 500..=599 => Kind::Unavailable,
            _ => Kind::Internal,
        };
        let mut text = String::new();
        // Its words are a help and no more.
        answer.body_mut().as_reader().take(300).read_to_string(&mut text).ok();
        let words: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Err(self.failed(&format!("GET {url}"), format!("{status} {}", words.trim()).trim(), kind))
    }

    fn authorize(&self, challenge: &Challenge) -> Result<String, SourceError> {
        let basic = self.login.as_ref().map(Login::basic);
        let no = |said: &str| self.failed("log in", said, Kind::PermissionDenied);
        match challenge {
            Challenge::Basic => basic.ok_or_else(|| {
                no("it wants a name and a password, and docker's config.json has none for it")
            }),
            Challenge::Bearer { realm, service, scope } => {
                let url = auth::token_url(realm, service, scope, &self.reference.repository())
                    .filter(|url| url.starts_with("https://") || self.base.starts_with("http://"))
                    .ok_or_else(|| no("it names a token service that cannot be used"))?;
                let mut request = self.agent.get(&url);
                if let Some(basic) = basic {
                    request = request.header("authorization", basic);
                }
                let answer = request.call().map_err(|error| no(&format!("{url}: {}", said(&error))))?;
                let mut answer = self.judged(&url, answer)?;
                let mut text = Vec::new();
                let read = answer.body_mut().as_reader().take(1 << 20).read_to_end(&mut text);
                read.map_err(|error| no(&error.to_string()))?;
                let token = auth::token(&text).ok_or_else(|| no("the token service gave no token"))?;
                Ok(format!("Bearer {token}"))
            }
        }
    }

    fn failed(&self, action: &str, said: &str, kind: Kind) -> SourceError {
        SourceError::Registry {
            registry: self.reference.registry().to_owned(),
            action: action.to_owned(),
            said: said.to_owned(),
            kind,
        }
    }
}

impl Blobs for Registry {
    fn blob(&self, digest: &Digest, size: u64) -> Result<Box<dyn Read + '_>, SourceError> {
        let answer = self.get(&format!("{}/blobs/{digest}", self.base), None)?;
        // One byte more than announced, so that too long a blob is noticed and not cut to fit.
        let reader = answer.into_body().into_with_config().limit(u64::MAX).reader();
        Ok(Box::new(reader.take(size.saturating_add(1))))
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>, SourceError> {
        let digest: Digest = descriptor.digest.parse()?;
        let answer = self.get(&format!("{}/manifests/{digest}", self.base), Some(ACCEPT))?;
        read_small(answer.into_body().into_reader(), &digest, Some(descriptor.size))
    }
}

fn agent(access: &Access, limits: &Limits) -> Agent {
    let roots = rustls_native_certs::load_native_certs();
    for error in &roots.errors {
        tracing::warn!(%error, "a certificate of this machine cannot be read");
    }
    let roots: Vec<Certificate<'static>> =
        roots.certs.iter().map(|found| Certificate::from_der(found.as_ref()).to_owned()).collect();
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    Agent::config_builder()
        .tls_config(tls)
        .https_only(!access.plain_http)
        .http_status_as_error(false)
        .user_agent(AGENT)
        .max_redirects(5)
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(SILENCE))
        .timeout_per_read(Some(SILENCE))
        .timeout_global(limits.remaining())
        .build()
        .new_agent()
}

fn header(answer: &Response<Body>, name: &str) -> String {
    let value = answer.headers().get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

/// What to do about it where that is known.
fn said(error: &ureq::Error) -> String {
    match error {
        ureq::Error::RequireHttpsOnly(_) => {
            "it leads to plain HTTP, which is used only with --plain-http".to_owned()
        }
        other => other.to_string(),
    }
}
