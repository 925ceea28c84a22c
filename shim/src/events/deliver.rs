//! The one task that sends: the head of the queue, again and again while containerd is away.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::shim_async::{Client, EventsClient};
use ttrpc::Code;
use ttrpc::asynchronous::transport::Socket;

use super::Queue;

/// containerd's own publisher gives one event this long.
const SEND_WITHIN: Duration = Duration::from_secs(5);

/// Pause between attempts while containerd is away: short, since a restart takes about a second.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(2);

/// An event that containerd answers with an error this often is dropped, or it would block all later ones.
const REFUSALS: u32 = 5;

/// Sends until the runtime ends.
pub(super) async fn deliver(queue: Arc<Queue>, address: String) {
    let mut client: Option<EventsClient> = None;
    loop {
        let (topic, envelope) = queue.head().await;
        let mut request = ForwardRequest::new();
        request.envelope = Some(envelope).into();
        let (mut refusals, mut pause) = (0, RETRY_FIRST);
        loop {
            match forward(&mut client, &address, &request).await {
                Ok(()) => {
                    queue.sent.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                Err(Undelivered::Refused(error)) => {
                    refusals += 1;
                    if refusals >= REFUSALS {
                        tracing::error!(topic, %error, "containerd refuses this event again and again; dropped");
                        queue.dropped.fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                }
                Err(Undelivered::NoAddress) => {
                    queue.dropped.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                Err(Undelivered::Away(error)) => {
                    client = None;
                    if pause == RETRY_FIRST {
                        tracing::info!(topic, %error, "containerd does not take events now; trying again");
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_LAST);
        }
        queue.pop();
    }
}

enum Undelivered {
    /// Nobody told us where events go.
    NoAddress,
    /// containerd is not there, or the connection broke.
    Away(String),
    /// containerd answered with an error.
    Refused(String),
}

async fn forward(
    client: &mut Option<EventsClient>,
    address: &str,
    request: &ForwardRequest,
) -> Result<(), Undelivered> {
    if address.is_empty() {
        return Err(Undelivered::NoAddress);
    }
    let events = match client {
        Some(events) => events,
        None => {
            let stream = tokio::net::UnixStream::connect(Path::new(address))
                .await
                .map_err(|e| Undelivered::Away(format!("{address}: {e}")))?;
            client.insert(EventsClient::new(Client::new(Socket::from(stream))))
        }
    };
    match events.forward(ttrpc::context::with_duration(SEND_WITHIN), request).await {
        Ok(_) => Ok(()),
        Err(ttrpc::Error::RpcStatus(status)) => match status.code() {
            Code::UNAVAILABLE | Code::CANCELLED | Code::DEADLINE_EXCEEDED => {
                Err(Undelivered::Away(status.message().to_owned()))
            }
            _ => Err(Undelivered::Refused(status.message().to_owned())),
        },
        Err(error) => Err(Undelivered::Away(error.to_string())),
    }
}
