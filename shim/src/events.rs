//! Events for containerd, in the order in which they happened.
//!
//! One queue, one sender, one request at a time: create comes before start before exit before delete, and a TaskOOM
//! before its exit, because they are queued under the container's lock in that order and nothing overtakes. While
//! containerd restarts the head of the queue is tried again and again; nothing is dropped but an event that
//! containerd itself refuses.
//!
//! The queue is bounded without ever blocking an exit: whoever makes a process reserves [`Slots`] for all events of
//! that process beforehand, and waits there (backpressure) or is refused.

mod deliver;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use containerd_shim_protos::events::task as message;
use containerd_shim_protos::shim::event::Envelope;
use cryopod_checkpoint::kind::Kind;
use protobuf::MessageFull;
use protobuf::well_known_types::any::Any;
use protobuf::well_known_types::timestamp::Timestamp;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::rpc::Failure;

/// Events that may wait for containerd. One is about 300 bytes; a pod makes thousands only by exec probes during a
/// long outage of containerd, which then cannot ask for more either.
const CAPACITY: usize = 1024;

/// How long a new process waits for room before it is refused; below kubelet's and CRI's patience.
const ROOM_WITHIN: Duration = Duration::from_secs(10);

/// No event can be queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EventsError {
    /// containerd has not taken events for long.
    #[error("{CAPACITY} events wait for containerd, which takes none; is its ttrpc socket served?")]
    Full,
}

impl Failure for EventsError {
    fn kind(&self) -> Kind {
        Kind::Unavailable
    }
}

/// What happened, as the message that containerd defines for it (`api/events/task.proto`).
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A container was created.
    Create(message::TaskCreate),
    /// Its init was started.
    Start(message::TaskStart),
    /// A process ended.
    Exit(message::TaskExit),
    /// A container was deleted.
    Delete(message::TaskDelete),
    /// The kernel killed a process for want of memory.
    Oom(message::TaskOOM),
    /// An exec was registered.
    ExecAdded(message::TaskExecAdded),
    /// An exec was started.
    ExecStarted(message::TaskExecStarted),
    /// A container was paused.
    Paused(message::TaskPaused),
    /// A container was resumed.
    Resumed(message::TaskResumed),
    /// A container was captured.
    Checkpointed(message::TaskCheckpointed),
}

impl Event {
    /// Topic as in containerd `core/runtime/events.go`, and the packed message.
    fn pack(&self) -> (&'static str, protobuf::Result<Any>) {
        match self {
            Event::Create(m) => ("/tasks/create", any(m)),
            Event::Start(m) => ("/tasks/start", any(m)),
            Event::Exit(m) => ("/tasks/exit", any(m)),
            Event::Delete(m) => ("/tasks/delete", any(m)),
            Event::Oom(m) => ("/tasks/oom", any(m)),
            Event::ExecAdded(m) => ("/tasks/exec-added", any(m)),
            Event::ExecStarted(m) => ("/tasks/exec-started", any(m)),
            Event::Paused(m) => ("/tasks/paused", any(m)),
            Event::Resumed(m) => ("/tasks/resumed", any(m)),
            Event::Checkpointed(m) => ("/tasks/checkpointed", any(m)),
        }
    }
}

/// An Any whose type URL is the bare name, as containerd's typeurl package writes and reads it.
///
/// # Errors
/// When the message cannot be encoded (required fields missing, which proto3 does not have).
pub fn any<M: MessageFull>(message: &M) -> protobuf::Result<Any> {
    let mut any = Any::new();
    any.type_url = M::descriptor().full_name().to_owned();
    any.value = message.write_to_bytes()?;
    Ok(any)
}

/// A point in time as protobuf has it.
pub fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut stamp = Timestamp::new();
    stamp.seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    // Below 10^9, so it fits.
    stamp.nanos = i32::try_from(since.subsec_nanos()).unwrap_or(0);
    stamp
}

struct Item {
    topic: &'static str,
    envelope: Envelope,
    // Held only to be given back when the event is gone.
    _room: Option<OwnedSemaphorePermit>,
}

struct Queue {
    namespace: String,
    items: Mutex<VecDeque<Item>>,
    more: Notify,
    empty: Notify,
    room: Arc<Semaphore>,
    sent: AtomicU64,
    dropped: AtomicU64,
}

/// The queue towards containerd; clones share it.
#[derive(Clone)]
pub struct Publisher(Arc<Queue>);

/// Room for the events of one process.
pub struct Slots {
    queue: Arc<Queue>,
    room: Option<OwnedSemaphorePermit>,
}

/// Counters of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Delivered.
    pub sent: u64,
    /// Refused by containerd and dropped.
    pub dropped: u64,
    /// Waiting.
    pub waiting: usize,
}

impl Publisher {
    /// A queue for `namespace` whose sender task delivers to the ttrpc socket `address`; must be called inside the
    /// tokio runtime. Without an address, events go nowhere.
    pub fn new(namespace: &str, address: &str) -> Self {
        let queue = Arc::new(Queue {
            namespace: namespace.to_owned(),
            items: Mutex::default(),
            more: Notify::new(),
            empty: Notify::new(),
            room: Arc::new(Semaphore::new(CAPACITY)),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        tokio::spawn(deliver::deliver(
            queue.clone(),
            address.strip_prefix("unix://").unwrap_or(address).to_owned(),
        ));
        Self(queue)
    }

    /// Room for `count` events, waiting for it while containerd is slow.
    ///
    /// # Errors
    /// [`EventsError::Full`] when there is none in time.
    pub async fn reserve(&self, count: u32) -> Result<Slots, EventsError> {
        let room = tokio::time::timeout(ROOM_WITHIN, self.0.room.clone().acquire_many_owned(count));
        match room.await {
            Ok(Ok(room)) => Ok(Slots { queue: self.0.clone(), room: Some(room) }),
            _ => Err(EventsError::Full),
        }
    }

    /// Waits until all queued events are delivered, at most for `patience`; whether they are.
    pub async fn flush(&self, patience: Duration) -> bool {
        let drained = async {
            loop {
                let empty = self.0.empty.notified();
                if self.0.lock().is_empty() {
                    return;
                }
                empty.await;
            }
        };
        tokio::time::timeout(patience, drained).await.is_ok()
    }

    /// What the queue did so far.
    pub fn counters(&self) -> Counters {
        Counters {
            sent: self.0.sent.load(Ordering::Relaxed),
            dropped: self.0.dropped.load(Ordering::Relaxed),
            waiting: self.0.lock().len(),
        }
    }
}

impl Slots {
    /// Queues an event. Callers hold the lock of the container that it is about.
    pub fn publish(&mut self, event: &Event) {
        let (topic, packed) = event.pack();
        let Ok(packed) = packed else { return };
        let mut envelope = Envelope::new();
        envelope.timestamp = Some(timestamp(SystemTime::now())).into();
        envelope.namespace.clone_from(&self.queue.namespace);
        envelope.topic = topic.to_owned();
        envelope.event = Some(packed).into();
        let room = self.room.as_mut().and_then(|room| room.split(1));
        self.queue.lock().push_back(Item { topic, envelope, _room: room });
        self.queue.more.notify_one();
    }
}

impl Queue {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Item>> {
        // The queue is consistent between any two of its operations, so a panic elsewhere does not spoil it.
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn head(&self) -> (&'static str, Envelope) {
        loop {
            let more = self.more.notified();
            if let Some(item) = self.lock().front() {
                return (item.topic, item.envelope.clone());
            }
            more.await;
        }
    }

    fn pop(&self) {
        let mut items = self.lock();
        items.pop_front();
        if items.is_empty() {
            items.shrink_to_fit();
            drop(items);
            self.empty.notify_waiters();
        }
    }
}
