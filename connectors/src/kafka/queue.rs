//! Messages in batches, borrowed from librdkafka's buffers.
//!
//! `rdkafka` only hands them out one by one, each with an event, a reference count and two clock readings;
//! the library's own batch call costs about half as much a message. It has no safe wrapper, so the unsafe
//! code of this connector is here, all of it.
#![expect(unsafe_code, reason = "librdkafka's batch call has no safe wrapper")]

use super::client::Consumer;
use rdkafka::bindings as sys;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;
use std::ffi::CStr;
use std::ptr::NonNull;
use std::time::Duration;
use tidemill_core::{Error, Result};

/// The queue of a consumer's messages. Must be dropped before the consumer.
#[derive(Debug)]
pub(super) struct Queue(NonNull<sys::rd_kafka_queue_t>);

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for Queue {}

impl Queue {
    /// Of a consumer with a `group.id`, which `rdkafka` has redirected to its consumer queue.
    pub(super) fn of(consumer: &Consumer) -> Result<Self> {
        // SAFETY: the client is alive; the call takes a reference of its own on the queue.
        let queue = unsafe { sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        NonNull::new(queue).map(Self).ok_or_else(|| Error::internal("the Kafka consumer has no queue"))
    }

    /// Appends at most `most` messages and says how many came. The call waits for all of them: a caller who
    /// is content with fewer asks for one, or does not wait.
    pub(super) fn take(&self, most: usize, wait: Duration, into: &mut Vec<Message>) -> usize {
        let mut room = vec![std::ptr::null_mut(); most];
        let wait = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue is alive, and `room` has as many places as said.
        let count = unsafe {
            sys::rd_kafka_consume_batch_queue(self.0.as_ptr(), wait, room.as_mut_ptr(), room.len())
        };
        // The call gives -1 only for queues that are not consumed from.
        let count = usize::try_from(count).unwrap_or_default();
        into.extend(room.iter().take(count).copied().filter_map(NonNull::new).map(Message));
        count
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: gives back the reference that `of` took.
        unsafe { sys::rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

/// One message, or an event of the partition such as its end. Must be dropped before the consumer.
#[derive(Debug)]
pub(super) struct Message(NonNull<sys::rd_kafka_message_t>);

// SAFETY: a message belongs to whoever took it from the queue; it may be read and destroyed anywhere.
unsafe impl Send for Message {}

impl Message {
    fn raw(&self) -> &sys::rd_kafka_message_t {
        // SAFETY: valid from the batch call until `drop`.
        unsafe { self.0.as_ref() }
    }

    pub(super) fn partition(&self) -> i32 {
        self.raw().partition
    }

    pub(super) fn offset(&self) -> i64 {
        self.raw().offset
    }

    /// Why this is an event and not a record.
    pub(super) fn event(&self) -> Option<RDKafkaErrorCode> {
        match RDKafkaErrorCode::from(self.raw().err) {
            RDKafkaErrorCode::NoError => None,
            code => Some(code),
        }
    }

    /// `None` for a tombstone.
    pub(super) fn payload(&self) -> Option<&[u8]> {
        let raw = self.raw();
        if raw.payload.is_null() {
            return None;
        }
        // SAFETY: the library says that `len` bytes lie there, as long as the message lives.
        Some(unsafe { std::slice::from_raw_parts(raw.payload.cast::<u8>(), raw.len) })
    }

    /// The text that comes with an event.
    pub(super) fn event_text(&self) -> String {
        // SAFETY: the call gives a null or a string that ends with a null and lives as long as the message.
        let text = unsafe { sys::rd_kafka_message_errstr(self.0.as_ptr()) };
        if text.is_null() {
            return String::new();
        }
        // SAFETY: as above, and it is not null.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }

    /// Milliseconds since the epoch, when the message carries a time.
    pub(super) fn timestamp_ms(&self) -> Option<i64> {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive, and `kind` is ours.
        let time = unsafe { sys::rd_kafka_message_timestamp(self.0.as_ptr(), &mut kind) };
        (kind != sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE).then_some(time)
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: we own the message, and nothing borrows from it any more.
        unsafe { sys::rd_kafka_message_destroy(self.0.as_ptr()) }
    }
}
