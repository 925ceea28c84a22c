use hyper::Method;
use serde_json::Value;

use super::*;
use crate::script::{Call, FakeNode, call, get, patch, play};

const NODE: &str = "/api/v1/nodes/n1";

fn labels() -> Value {
    json!({ "cryopod.dev/ready": "true", "cryopod.dev/handler-cryopod": "true" })
}

/// A node's object as kubelet reports it.
fn node(uid: &str, labels: &Value, ready: &str, handlers: &[&str]) -> Value {
    let handlers: Vec<Value> = handlers.iter().map(|name| json!({ "name": name })).collect();
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1", "uid": uid, "labels": labels },
        "status": { "conditions": [{ "type": "Ready", "status": ready }], "runtimeHandlers": handlers },
    })
}

fn noted(value: &Value) -> Noted {
    Noted::of(&serde_json::from_value(value.clone()).unwrap()).unwrap()
}

fn step(now: &Value) -> Step {
    let now: Node = serde_json::from_value(now.clone()).unwrap();
    plan(&noted(&node("old", &labels(), "True", &["cryopod"])), &now.uid().unwrap(), &view(&now))
}

#[test]
fn only_an_object_that_setup_never_saw_gets_the_labels_and_only_when_pods_would_run_there() {
    let fresh = json!({ "kubernetes.io/os": "linux" });
    assert_eq!(step(&node("new", &fresh, "True", &["cryopod"])), Step::PutBack);
    assert_eq!(step(&node("old", &fresh, "True", &["cryopod"])), Step::Leave, "somebody took them off");
    let begun = json!({ "cryopod.dev/ready": "false" });
    assert_eq!(
        step(&node("new", &begun, "True", &["cryopod"])),
        Step::Leave,
        "setup is at work or has failed"
    );
    assert!(matches!(step(&node("new", &fresh, "Unknown", &["cryopod"])), Step::Wait(_)));
    assert!(
        matches!(step(&node("new", &fresh, "True", &["runc"])), Step::Wait(why) if why.contains("cryopod"))
    );
    let unready = noted(&node("old", &begun, "True", &["cryopod"]));
    let now: Node = serde_json::from_value(node("new", &fresh, "True", &["cryopod"])).unwrap();
    assert_eq!(plan(&unready, "new", &view(&now)), Step::Leave);
}

#[test]
fn what_is_written_down_stays_readable() {
    let text = r#"{"version":1,"uid":"u","labels":{"cryopod.dev/ready":"true"}}"#;
    let noted = Noted::parse(text).unwrap();
    assert_eq!(noted.text(), text);
    assert_eq!(Noted::parse(&text.replace('1', "2")), None);
    assert_eq!(Noted::parse("half"), None);
    assert_eq!(Noted::of(&Node::default()), None);
}

/// One look at a node whose labels were noted as those of the object `old`; what is noted then.
async fn look(script: Vec<Call>, busy: bool) -> (Result<bool, String>, Noted) {
    let dir = tempfile::tempdir().unwrap();
    let (file, lock) = (dir.path().join("labels.json"), dir.path().join("lock"));
    std::fs::write(&file, noted(&node("old", &labels(), "True", &["cryopod"])).text()).unwrap();
    let setup = File::create(&lock).unwrap();
    if busy {
        setup.lock().unwrap();
    }
    let path = file.clone();
    let done =
        play(FakeNode::new(), script, |context| async move { keep(&context, &path, &lock).await }).await.0;
    (done, Noted::parse(&std::fs::read_to_string(&file).unwrap()).unwrap())
}

#[tokio::test]
async fn a_node_that_registered_anew_gets_its_labels_back_once() {
    let fresh = node("new", &json!({}), "True", &["cryopod"]);
    let back = patch(
        NODE,
        json!({ "metadata": { "uid": "new", "labels": labels() } }),
        &node("new", &labels(), "True", &[]),
    );
    let (done, after) = look(vec![get(NODE, &fresh), get(NODE, &fresh), back], false).await;
    assert!(done.unwrap());
    assert_eq!(after.uid, "new");
}

#[tokio::test]
async fn the_same_object_costs_one_small_request_and_nothing_is_written() {
    let (done, after) = look(vec![get(NODE, &node("old", &json!({}), "True", &["cryopod"]))], false).await;
    assert_eq!((done, after.uid.as_str()), (Ok(false), "old"));
}

#[tokio::test]
async fn setup_is_not_disturbed_and_what_failed_is_tried_again() {
    let fresh = node("new", &json!({}), "True", &["cryopod"]);
    assert_eq!(look(vec![get(NODE, &fresh)], true).await.0, Ok(false));
    let refused = call(Method::PATCH, NODE).fails(403, "Forbidden");
    let (done, after) = look(vec![get(NODE, &fresh), get(NODE, &fresh), refused], false).await;
    assert!(done.unwrap_err().contains("label the node"));
    assert_eq!(after.uid, "old", "the next look tries again");
    assert_eq!(look(vec![call(Method::GET, NODE).fails(404, "NotFound")], false).await.0, Ok(false));
}

#[tokio::test]
async fn without_a_note_nothing_is_asked() {
    let nowhere = Path::new("/nonexistent/labels.json");
    let done =
        play(FakeNode::new(), Vec::new(), |context| async move { keep(&context, nowhere, nowhere).await });
    assert_eq!(done.await.0, Ok(false));
}
