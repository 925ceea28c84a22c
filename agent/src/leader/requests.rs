//! What an agent asks of the API server to lead.

use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::Method;
use serde_json::{Value, json};

use super::*;
use crate::script::{Call, FakeNode, assert_has, call, get, play};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/cryopod-system/leases";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/cryopod-system/leases/cryopod-agent-leader";

fn lease(holder: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": "cryopod-agent-leader", "namespace": "cryopod-system", "resourceVersion": "4" },
        "spec": {
            "holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 2,
            "acquireTime": "2026-01-01T00:00:00.000000Z", "renewTime": "2026-01-01T00:00:00.000000Z",
        },
    })
}

/// What was seen of the other's lease for so long.
fn seen_for(seconds: u64) -> Option<Sight> {
    Some(Sight {
        holder: "other".into(),
        renewed: "2026-01-01T00:00:00Z".parse().ok(),
        since: Instant::now().checked_sub(Duration::from_secs(seconds))?,
    })
}

/// One look, after this sight; whether it leads now.
async fn look(sight: Option<Sight>, script: Vec<Call>) -> Result<bool, Error> {
    play(FakeNode::new(), script, |context| async move {
        let mut sight = sight;
        election(&context.client).look(&mut sight).await
    })
    .await
    .0
}

fn election(client: &Client) -> Election {
    Election::new(client.clone(), "cryopod-system", "me".into(), Contact::default())
}

/// Writes the lease in our name, over the version that was read.
fn writes(part: Value) -> Call {
    call(Method::PUT, LEASE).with(move |body| {
        assert_has(
            body,
            &json!({ "metadata": { "resourceVersion": "4" }, "spec": { "holderIdentity": "me" } }),
        );
        assert_has(body, &json!({ "spec": part }));
        assert_ne!(body["spec"]["renewTime"], lease("")["spec"]["renewTime"], "renewed now");
    })
}

#[tokio::test]
async fn the_first_agent_makes_the_lease() {
    let none = || call(Method::GET, LEASE).fails(404, "NotFound");
    let make =
        || call(Method::POST, LEASES).with(|body| assert_eq!(body["spec"]["holderIdentity"], json!("me")));
    assert!(look(None, vec![none(), make()]).await.unwrap());
    let slower = make().fails(409, "AlreadyExists");
    assert!(!look(None, vec![none(), slower]).await.unwrap(), "another one made it in between");
}

#[tokio::test]
async fn the_holder_renews_and_stays_since_when_it_was() {
    let same = json!({ "leaseTransitions": 2, "acquireTime": "2026-01-01T00:00:00.000000Z" });
    assert!(look(None, vec![get(LEASE, &lease("me")), writes(same)]).await.unwrap());
}

#[tokio::test]
async fn a_lease_that_nobody_renews_is_taken_over_after_its_time_and_not_before() {
    assert!(!look(seen_for(14), vec![get(LEASE, &lease("other"))]).await.unwrap(), "nothing is written");
    let next = || writes(json!({ "leaseTransitions": 3 }));
    assert!(look(seen_for(16), vec![get(LEASE, &lease("other")), next()]).await.unwrap());
    let lost = next().fails(409, "Conflict");
    assert!(
        !look(seen_for(16), vec![get(LEASE, &lease("other")), lost]).await.unwrap(),
        "a third one was quicker"
    );
}

#[tokio::test]
async fn a_failing_api_server_is_neither_won_nor_lost() {
    assert!(look(None, vec![call(Method::GET, LEASE).fails(500, "InternalError")]).await.is_err());
    let script = vec![get(LEASE, &lease("me")), call(Method::PUT, LEASE).fails(500, "InternalError")];
    assert!(look(None, script).await.is_err());
}

#[tokio::test]
async fn what_the_leader_does_ends_when_the_lease_is_lost_on_a_conflict() {
    let script = vec![
        get(LEASE, &lease("me")),
        writes(json!({})),
        get(LEASE, &lease("me")),
        call(Method::PUT, LEASE).fails(409, "Conflict"),
    ];
    let ((begun, ended), _) = play(FakeNode::new(), script, |context| async move {
        let (told, mut leading) = tokio::sync::watch::channel(false);
        let (begun, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (starts, ends) = (Arc::clone(&begun), Arc::clone(&ended));
        let running = tokio::spawn(election(&context.client).run(told, move || {
            starts.fetch_add(1, Ordering::Relaxed);
            let ends = OnDrop(Arc::clone(&ends));
            async move {
                let _ends = ends;
                std::future::pending::<()>().await;
            }
        }));
        for expected in [true, false] {
            leading.wait_for(|leads| *leads == expected).await.unwrap();
        }
        running.abort();
        running.await.unwrap_err();
        (begun.load(Ordering::Relaxed), ended.load(Ordering::Relaxed))
    })
    .await;
    assert_eq!((begun, ended), (1, 1));
}

/// Counts that what holds it is dropped.
struct OnDrop(Arc<AtomicUsize>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
