//! What a transfer owes to a sink when it does not succeed.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lifeboat_core::memory::MemoryStore;
use lifeboat_core::{
    Attributes, Completion, Context, Entry, EntryPath, Error, ErrorKind, Header, Receipt, Result,
    Sink, TransferOptions, Writing, async_trait, transfer,
};

/// What happens in the first put while the second one is in the middle of something.
#[derive(Debug, Clone, Copy, PartialEq)]
enum First {
    Fails,
    Cancels,
    Panics,
}

#[derive(Clone)]
struct Stubborn {
    first: First,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    told: tokio::sync::Notify,
    busy: AtomicBool,
    gave_up: AtomicBool,
    interrupted: AtomicBool,
}

#[async_trait]
impl Sink for Stubborn {
    async fn write(&self, _: &Header, context: &Context) -> Result<Box<dyn Writing>> {
        Ok(Box::new(StubbornWriting { sink: self.clone(), context: context.clone() }))
    }
}

struct StubbornWriting {
    sink: Stubborn,
    context: Context,
}

#[async_trait]
impl Writing for StubbornWriting {
    async fn put(&self, ordinal: u64, _: Entry) -> Result<()> {
        let state = &self.sink.state;
        if ordinal == 0 {
            state.told.notified().await;
            match self.sink.first {
                First::Fails => return Err(Error::new(ErrorKind::Other, "no room")),
                First::Panics => panic!("the sink is broken"),
                First::Cancels => self.context.cancel(),
            }
            return Ok(());
        }
        // Between two awaits, as when a file is being made.
        state.busy.store(true, Ordering::SeqCst);
        // From outside: a task woken from here would wait for this thread.
        let first = Arc::clone(state);
        std::thread::spawn(move || first.told.notify_one());
        let until = Instant::now() + Duration::from_millis(300);
        while Instant::now() < until && !state.gave_up.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        state.busy.store(false, Ordering::SeqCst);
        Ok(())
    }

    async fn commit(self: Arc<Self>, _: Completion) -> Result<Receipt> {
        Ok(Receipt::default())
    }

    async fn abort(self: Arc<Self>) {
        let state = &self.sink.state;
        state.interrupted.store(state.busy.load(Ordering::SeqCst), Ordering::SeqCst);
        state.gave_up.store(true, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_undone_while_a_put_is_still_at_work() {
    for first in [First::Fails, First::Cancels, First::Panics] {
        let store = MemoryStore::new("two");
        for name in ["a", "b"] {
            let path = EntryPath::new(name).unwrap();
            store.insert(Entry::file(path, Attributes::new(), name)).await.unwrap();
        }
        let sink = Stubborn { first, state: Arc::default() };
        let context = Context::silent();
        transfer(&store, &sink, &TransferOptions::default(), &context).await.unwrap_err();
        assert!(sink.state.gave_up.load(Ordering::SeqCst), "{first:?}: nobody gave up");
        let interrupted = sink.state.interrupted.load(Ordering::SeqCst);
        assert!(!interrupted, "{first:?}: a put was still at work when the rest was undone");
    }
}
