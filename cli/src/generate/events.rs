//! The events themselves: a pure function of a spec and a seed.

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

const REGIONS: [&str; 5] = ["eu", "us", "ap", "sa", "af"];
const DEVICES: [&str; 3] = ["mobile", "desktop", "tablet"];
const SOURCES: [&str; 3] = ["web", "app", "partner"];
const USERS: u32 = 50_000;
const PRODUCTS: u32 = 1_000;
/// So many events are kept to be repeated.
const REMEMBERED: usize = 512;
/// A repetition comes within this time, in seconds of event time.
const REPEATED_WITHIN: f64 = 3.0;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// What the stream is made from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EventSpec {
    /// Event time of the first event, in milliseconds since the epoch.
    pub start_ms: i64,
    /// How fast event time goes on.
    pub events_per_second: f64,
    pub late_share: f64,
    /// How far behind a late event lies, in milliseconds.
    pub lateness_ms: i64,
    pub duplicate_share: f64,
    pub malformed_share: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    Good,
    /// The payload of a good event of the last seconds, again.
    Duplicate,
    /// Good but for its time.
    Late,
    /// Cut off, not JSON, empty, without its `event_id`, or with a word for its price.
    Malformed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum EventType {
    #[default]
    Click,
    View,
    Purchase,
    Search,
}

impl EventType {
    pub(crate) fn name(self) -> &'static str {
        match self {
            EventType::Click => "click",
            EventType::View => "view",
            EventType::Purchase => "purchase",
            EventType::Search => "search",
        }
    }

    fn page(self) -> &'static str {
        match self {
            EventType::Click => "/home",
            EventType::View => "/product",
            EventType::Purchase => "/cart",
            EventType::Search => "/search",
        }
    }
}

/// What an observer needs to count an event without reading its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub kind: EventKind,
    /// In milliseconds since the epoch.
    pub event_time_ms: i64,
    pub event_type: EventType,
    pub region: &'static str,
    /// In hundredths, so that sums are exact.
    pub price_cents: u32,
    pub quantity: u32,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub key: Vec<u8>,
    pub payload: Vec<u8>,
    pub facts: Facts,
}

impl Default for Event {
    fn default() -> Self {
        let facts = Facts {
            kind: EventKind::Good,
            event_time_ms: 0,
            event_type: EventType::Click,
            region: REGIONS[0],
            price_cents: 0,
            quantity: 0,
        };
        Self { key: Vec::new(), payload: Vec::new(), facts }
    }
}

/// Endless. [`Self::fill`] allocates nothing once its buffers have grown; the iterator is for everyone
/// who does not count nanoseconds.
#[derive(Debug)]
pub(crate) struct EventStream {
    spec: EventSpec,
    random: ChaCha8Rng,
    index: u64,
    /// The last good events, in a ring.
    recent: Vec<Event>,
    recent_next: usize,
    clock: Clock,
}

impl EventStream {
    pub(crate) fn new(spec: EventSpec, seed: u64) -> Self {
        Self {
            spec,
            random: ChaCha8Rng::seed_from_u64(seed),
            index: 0,
            recent: Vec::new(),
            recent_next: 0,
            clock: Clock::default(),
        }
    }

    /// Makes the next event in place of `event`.
    pub(crate) fn fill(&mut self, event: &mut Event) {
        let elapsed_ms = self.index as f64 * 1000.0 / self.spec.events_per_second;
        let time_ms = self.spec.start_ms + elapsed_ms as i64;
        self.index += 1;
        event.facts.kind = self.draw_kind();
        event.facts.event_time_ms = match event.facts.kind {
            EventKind::Late => time_ms - self.spec.lateness_ms,
            _ => time_ms,
        };
        match event.facts.kind {
            EventKind::Duplicate => self.repeat(event),
            EventKind::Good | EventKind::Late => self.write(event, Fault::None),
            EventKind::Malformed => self.write_malformed(event),
        }
        if event.facts.kind == EventKind::Good && self.spec.duplicate_share > 0.0 {
            self.remember(event);
        }
    }

    fn draw_kind(&mut self) -> EventKind {
        let EventSpec { late_share, duplicate_share, malformed_share, .. } = self.spec;
        let draw = self.random.random::<f64>();
        if draw < malformed_share {
            EventKind::Malformed
        } else if draw < malformed_share + late_share {
            EventKind::Late
        } else if draw < malformed_share + late_share + duplicate_share && !self.recent.is_empty() {
            EventKind::Duplicate
        } else {
            EventKind::Good
        }
    }

    fn repeat(&mut self, event: &mut Event) {
        let within = (self.spec.events_per_second * REPEATED_WITHIN) as usize;
        let back = 1 + self.random.random_range(0..within.clamp(1, self.recent.len()));
        let original = &self.recent[(self.recent_next + self.recent.len() - back) % self.recent.len()];
        event.key.clone_from(&original.key);
        event.payload.clone_from(&original.payload);
        event.facts = Facts { kind: EventKind::Duplicate, ..original.facts };
    }

    fn remember(&mut self, event: &Event) {
        if self.recent.len() < REMEMBERED {
            self.recent.push(event.clone());
            self.recent_next = 0;
            return;
        }
        let oldest = &mut self.recent[self.recent_next];
        oldest.key.clone_from(&event.key);
        oldest.payload.clone_from(&event.payload);
        oldest.facts = event.facts;
        self.recent_next = (self.recent_next + 1) % REMEMBERED;
    }

    fn write_malformed(&mut self, event: &mut Event) {
        match self.random.random_range(0..5) {
            0 => self.write(event, Fault::NoEventId),
            1 => self.write(event, Fault::PriceInWords),
            2 => {
                self.write(event, Fault::None);
                let length = self.random.random_range(1..event.payload.len());
                event.payload.truncate(length);
            }
            3 => {
                self.write(event, Fault::None);
                event.payload.clear();
            }
            _ => {
                self.write(event, Fault::None);
                event.payload.clear();
                event.payload.extend_from_slice(b"<event>not JSON at all</event>");
            }
        }
    }

    fn write(&mut self, event: &mut Event, fault: Fault) {
        let bits = self.random.next_u64();
        // Fields of 16 bits and less scaled to their ranges: no division, and even enough.
        let scaled = |bits: u64, most: u32| ((bits * u64::from(most)) >> 16) as u32;
        let part = |shift: u32| (bits >> shift) & 0xffff;
        let user = scaled(part(0), USERS);
        let product = scaled(part(16), PRODUCTS);
        event.facts.price_cents = 100 + scaled(part(32), 49_900);
        event.facts.quantity = 1 + ((bits >> 48) & 3) as u32;
        event.facts.event_type = match (bits >> 50) & 7 {
            0..=2 => EventType::View,
            3 | 4 => EventType::Click,
            5 | 6 => EventType::Purchase,
            _ => EventType::Search,
        };
        event.facts.region = REGIONS[((bits >> 53) % 5) as usize];
        let device = DEVICES[((bits >> 56) % 3) as usize];
        let source = SOURCES[((bits >> 58) % 3) as usize];
        let id = [self.random.next_u64(), self.random.next_u64()];

        event.key.clear();
        event.key.extend_from_slice(b"user");
        push_number(&mut event.key, user);
        let out = &mut event.payload;
        out.clear();
        out.push(b'{');
        if fault != Fault::NoEventId {
            out.extend_from_slice(b"\"event_id\":\"");
            push_uuid(out, id);
            out.extend_from_slice(b"\",");
        }
        out.extend_from_slice(b"\"event_type\":\"");
        out.extend_from_slice(event.facts.event_type.name().as_bytes());
        out.extend_from_slice(b"\",\"timestamp\":\"");
        self.clock.push(out, event.facts.event_time_ms);
        out.extend_from_slice(b"\",\"user_id\":\"");
        out.extend_from_slice(&event.key);
        out.extend_from_slice(b"\",\"data\":{\"action\":\"");
        out.extend_from_slice(event.facts.event_type.name().as_bytes());
        out.extend_from_slice(b"\",\"page\":\"");
        out.extend_from_slice(event.facts.event_type.page().as_bytes());
        out.extend_from_slice(b"\",\"session_id\":\"session");
        push_number(out, (id[1] >> 44) as u32);
        out.extend_from_slice(b"\",\"product_id\":\"p");
        push_number(out, product);
        out.extend_from_slice(b"\",\"price\":");
        if fault == Fault::PriceInWords {
            out.extend_from_slice(b"\"a lot\"");
        } else {
            push_number(out, event.facts.price_cents / 100);
            let cents = event.facts.price_cents % 100;
            out.extend_from_slice(&[b'.', digit(cents / 10), digit(cents)]);
        }
        out.extend_from_slice(b",\"quantity\":");
        push_number(out, event.facts.quantity);
        out.extend_from_slice(b"},\"metadata\":{\"source\":\"");
        out.extend_from_slice(source.as_bytes());
        out.extend_from_slice(b"\",\"version\":\"1.0\",\"region\":\"");
        out.extend_from_slice(event.facts.region.as_bytes());
        out.extend_from_slice(b"\",\"device\":\"");
        out.extend_from_slice(device.as_bytes());
        out.extend_from_slice(b"\"}}");
    }
}

impl Iterator for EventStream {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let mut event = Event::default();
        self.fill(&mut event);
        Some(event)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    NoEventId,
    PriceInWords,
}

/// Writes RFC 3339, remembering the second that it wrote last.
#[derive(Debug, Default)]
struct Clock {
    second: Option<i64>,
    /// `2026-01-01T00:00:00`
    text: String,
}

impl Clock {
    fn push(&mut self, out: &mut Vec<u8>, time_ms: i64) {
        let second = time_ms.div_euclid(1000);
        if self.second != Some(second) {
            self.second = Some(second);
            let time = chrono::DateTime::from_timestamp(second, 0).unwrap_or_default();
            self.text = time.format("%Y-%m-%dT%H:%M:%S").to_string();
        }
        out.extend_from_slice(self.text.as_bytes());
        let millis = time_ms.rem_euclid(1000) as u32;
        out.extend_from_slice(&[b'.', digit(millis / 100), digit(millis / 10), digit(millis), b'Z']);
    }
}

/// The last decimal digit.
fn digit(number: u32) -> u8 {
    b'0' + (number % 10) as u8
}

fn push_number(out: &mut Vec<u8>, mut number: u32) {
    let mut text = [0; 10];
    let mut first = text.len();
    loop {
        first -= 1;
        text[first] = digit(number);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[first..]);
}

/// A version 4 UUID (RFC 9562).
fn push_uuid(out: &mut Vec<u8>, [high, low]: [u64; 2]) {
    let high = (high & !0xf000) | 0x4000;
    let low = (low & !(0b11 << 62)) | (0b10 << 62);
    let mut text = [b'-'; 36];
    let places = (0..36).filter(|place| !matches!(place, 8 | 13 | 18 | 23));
    for (index, place) in places.enumerate() {
        let half = if index < 16 { high } else { low };
        text[place] = HEX[(half >> (60 - 4 * (index % 16))) as usize & 15];
    }
    out.extend_from_slice(&text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn spec() -> EventSpec {
        EventSpec {
            start_ms: 1_767_225_600_000,
            events_per_second: 1000.0,
            late_share: 0.02,
            lateness_ms: 600_000,
            duplicate_share: 0.03,
            malformed_share: 0.05,
        }
    }

    fn parse(event: &Event) -> Option<serde_json::Value> {
        serde_json::from_slice(&event.payload).ok()
    }

    #[test]
    fn the_same_seed_gives_the_same_events_and_another_one_does_not() {
        let take = |seed| EventStream::new(spec(), seed).take(2000).collect::<Vec<_>>();
        assert_eq!(take(7), take(7));
        assert_ne!(take(7), take(8));
    }

    #[test]
    fn facts_say_what_the_payload_says() {
        let plain = EventSpec { late_share: 0.0, duplicate_share: 0.0, malformed_share: 0.0, ..spec() };
        for event in EventStream::new(plain, 1).take(5000) {
            let value = parse(&event).unwrap();
            let facts = event.facts;
            assert_eq!(facts.kind, EventKind::Good);
            assert_eq!(value["event_type"], facts.event_type.name());
            assert_eq!(value["metadata"]["region"], facts.region);
            assert_eq!(value["data"]["quantity"], facts.quantity);
            let price = value["data"]["price"].as_f64().unwrap();
            assert_eq!((price * 100.0).round() as u32, facts.price_cents);
            let time = chrono::DateTime::parse_from_rfc3339(value["timestamp"].as_str().unwrap()).unwrap();
            assert_eq!(time.timestamp_millis(), facts.event_time_ms);
            assert_eq!(value["user_id"].as_str().unwrap().as_bytes(), event.key);
            let id = uuid::Uuid::parse_str(value["event_id"].as_str().unwrap()).unwrap();
            assert_eq!(id.get_version_num(), 4);
            assert!((250..400).contains(&event.payload.len()), "{}", event.payload.len());
        }
    }

    #[test]
    fn kinds_come_in_their_shares_and_are_what_they_say() {
        let events: Vec<Event> = EventStream::new(spec(), 42).take(50_000).collect();
        let mut originals: HashMap<&[u8], usize> = HashMap::new();
        let mut counts = [0usize; 4];
        for (index, event) in events.iter().enumerate() {
            let now = spec().start_ms + index as i64;
            match event.facts.kind {
                EventKind::Good => {
                    counts[0] += 1;
                    assert!(originals.insert(&event.payload, index).is_none(), "ids are unique");
                }
                EventKind::Duplicate => {
                    counts[1] += 1;
                    let original = originals[event.payload.as_slice()];
                    assert!(index - original <= 3000, "{original} repeated at {index}");
                }
                EventKind::Late => {
                    counts[2] += 1;
                    assert_eq!(event.facts.event_time_ms, now - 600_000);
                    assert!(parse(event).is_some());
                }
                EventKind::Malformed => {
                    counts[3] += 1;
                    let sound = parse(event).is_some_and(|value| {
                        value["event_id"].is_string() && value["data"]["price"].is_number()
                    });
                    assert!(!sound, "{}", String::from_utf8_lossy(&event.payload));
                }
            }
        }
        for (count, share) in counts[1..].iter().zip([0.03, 0.02, 0.05]) {
            let share_found = *count as f64 / events.len() as f64;
            assert!((share_found - share).abs() < 0.005, "{share_found} instead of {share}");
        }
    }
}
