//! Gives memory back after work: a pod is idle nearly all of its life, and what a request has needed would stay
//! resident with every shim of the node.

use std::time::Duration;

use tokio::sync::Notify;

use crate::sys;

/// Requests come in bursts (create, start, state, …); trimming waits until they are over.
const QUIET: Duration = Duration::from_secs(2);

static WORKED: Notify = Notify::const_new();

/// Notes that a request was served.
pub fn hint() {
    WORKED.notify_one();
}

/// Trims the heap once after each burst; an idle shim does not wake up.
pub async fn trim() {
    loop {
        WORKED.notified().await;
        while tokio::time::timeout(QUIET, WORKED.notified()).await.is_ok() {}
        sys::trim_heap();
    }
}
