//! A hash that a thread of its own computes, beside whoever reads and writes the bytes: for hundreds of megabytes, of which
//! hashing is a good part of the work.

use std::io::{self, Write};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::{Hasher, Sha256};

/// Handed over at once: a thousand times what waking a thread costs.
const BLOCK: usize = 1 << 20;
/// On their way. With the one that fills and the one that is hashed, what this takes of memory.
const WAITING: usize = 2;

/// A hash that grows with what is written to it.
#[derive(Debug)]
pub struct Beside {
    block: Vec<u8>,
    /// `None` where no thread could be had: then it is hashed here.
    worker: Option<(SyncSender<Vec<u8>>, JoinHandle<Hasher>)>,
    here: Hasher,
}

impl Default for Beside {
    fn default() -> Self {
        let (to, blocks) = sync_channel::<Vec<u8>>(WAITING);
        let work = move || {
            let mut hasher = Hasher::default();
            blocks.into_iter().for_each(|block| hasher.update(&block));
            hasher
        };
        let thread = std::thread::Builder::new().name("sha256".to_owned()).spawn(work);
        Self { block: Vec::new(), worker: thread.ok().map(|thread| (to, thread)), here: Hasher::default() }
    }
}

impl Beside {
    /// Adds bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        if self.worker.is_none() {
            return self.here.update(bytes);
        }
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - self.block.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == BLOCK {
                self.hand_over();
            }
        }
    }

    fn hand_over(&mut self) {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        if let Some((to, _)) = &self.worker {
            // Refused only when the thread has gone; `finish` says so.
            to.send(block).ok();
        }
    }

    /// The value of everything added so far.
    ///
    /// # Errors
    /// When the thread did not do its work.
    pub fn finish(mut self) -> io::Result<Sha256> {
        self.hand_over();
        let Some((to, thread)) = self.worker else { return Ok(self.here.finish()) };
        drop(to);
        thread.join().map(Hasher::finish).map_err(|_| io::Error::other("the thread that hashes has failed"))
    }
}

impl Write for Beside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_hash_of_all_bytes_in_their_order() {
        let bytes: Vec<u8> = (0..3 * BLOCK + 17).map(|n| (n % 251) as u8).collect();
        for piece in [BLOCK - 1, BLOCK, BLOCK + 1, 100_000] {
            let mut beside = Beside::default();
            bytes.chunks(piece).for_each(|piece| beside.update(piece));
            assert_eq!(beside.finish().unwrap(), super::super::of(&bytes), "in pieces of {piece}");
        }
        assert_eq!(Beside::default().finish().unwrap(), super::super::of(b""));
        let mut without = Beside { worker: None, ..Beside::default() };
        without.update(b"abc");
        assert_eq!(without.finish().unwrap(), super::super::of(b"abc"));
    }
}
