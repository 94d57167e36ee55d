//! The APIs, each from its request to its answer.

use super::log::{Code, Log};
use super::wire::{Reader, Writer};
use anyhow::{Result, bail};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const LIST_OFFSETS: i16 = 2;
const METADATA: i16 = 3;
const FIND_COORDINATOR: i16 = 10;
const API_VERSIONS: i16 = 18;
const CREATE_TOPICS: i16 = 19;
const INIT_PRODUCER_ID: i16 = 22;

/// Key, lowest and highest version.
pub(super) const APIS: &[(i16, i16, i16)] = &[
    (PRODUCE, 3, 3),
    (FETCH, 4, 4),
    (LIST_OFFSETS, 1, 1),
    (METADATA, 1, 1),
    (FIND_COORDINATOR, 0, 0),
    (API_VERSIONS, 0, 0),
    (CREATE_TOPICS, 0, 4),
    (INIT_PRODUCER_ID, 0, 0),
];

/// The only broker's id.
const NODE: i32 = 1;
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// A partition costs next to nothing; a slip of the keyboard should not cost gigabytes.
const MAX_PARTITIONS: i32 = 1024;

type Topics = BTreeMap<String, Vec<Log>>;

#[derive(Debug)]
pub(super) struct Node {
    address: SocketAddr,
    topics: Mutex<Topics>,
    /// Wakes the fetches that wait.
    appended: Notify,
    next_producer: AtomicI64,
}

struct FetchPartition {
    partition: i32,
    offset: i64,
    max_bytes: usize,
}

/// What one partition gives to a fetch.
struct Fetched {
    partition: i32,
    end: i64,
    found: Result<Vec<Arc<[u8]>>, Code>,
}

impl Node {
    pub(super) fn new(address: SocketAddr) -> Self {
        let topics = Mutex::new(BTreeMap::new());
        Self { address, topics, appended: Notify::new(), next_producer: AtomicI64::new(1) }
    }

    /// The frame to send back, or none where the client wants none.
    ///
    /// # Errors
    /// When the request cannot be understood; the connection must then end.
    pub(super) async fn answer(&self, frame: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut request = Reader(frame);
        let (key, version, correlation) = (request.i16()?, request.i16()?, request.i32()?);
        request.string_or_null()?;
        let known = APIS.iter().any(|(api, low, high)| *api == key && (*low..=*high).contains(&version));
        let mut answer = Writer::new(correlation);
        match key {
            // Clients ask in their newest version first and then take what this answer offers (KIP-511).
            API_VERSIONS if !known => api_versions(&mut answer, Code::UnsupportedVersion)?,
            API_VERSIONS => api_versions(&mut answer, Code::None)?,
            _ if !known => bail!("API {key} in version {version}"),
            PRODUCE => {
                if !self.produce(&mut request, &mut answer).await? {
                    return Ok(None);
                }
            }
            FETCH => self.fetch(&mut request, &mut answer).await?,
            LIST_OFFSETS => self.list_offsets(&mut request, &mut answer).await?,
            METADATA => self.metadata(&mut request, &mut answer).await?,
            FIND_COORDINATOR => {
                answer.i16(Code::None as i16);
                self.write_node(&mut answer)?;
            }
            CREATE_TOPICS => self.create_topics(&mut request, &mut answer, version).await?,
            INIT_PRODUCER_ID => {
                answer.i32(0);
                answer.i16(Code::None as i16);
                answer.i64(self.next_producer.fetch_add(1, Ordering::Relaxed));
                answer.i16(0);
            }
            _ => bail!("API {key}"),
        }
        answer.frame().map(Some)
    }

    /// False when the producer wants no answer.
    async fn produce(&self, request: &mut Reader<'_>, answer: &mut Writer) -> Result<bool> {
        let _transaction = request.string_or_null()?;
        let acks = request.i16()?;
        let _timeout = request.i32()?;
        let batches = request.array(|request| {
            let topic = request.string()?;
            Ok((topic, request.array(|request| Ok((request.i32()?, request.bytes()?)))?))
        })?;
        let mut topics = self.topics.lock().await;
        answer.array(&batches, |answer, (topic, partitions)| {
            answer.string(topic)?;
            answer.array(partitions, |answer, (partition, bytes)| {
                let log = log_of(&mut topics, topic, *partition);
                let appended = log.and_then(|log| log.append(bytes));
                answer.i32(*partition);
                answer.i16(appended.err().unwrap_or(Code::None) as i16);
                answer.i64(appended.unwrap_or(-1));
                // The log's own time, which is none: records keep the time of their producer.
                answer.i64(-1);
                Ok(())
            })
        })?;
        answer.i32(0);
        drop(topics);
        self.appended.notify_waiters();
        Ok(acks != 0)
    }

    async fn fetch(&self, request: &mut Reader<'_>, answer: &mut Writer) -> Result<()> {
        let _replica = request.i32()?;
        let wait = Duration::from_millis(u64::try_from(request.i32()?).unwrap_or(0));
        let min_bytes = usize::try_from(request.i32()?).unwrap_or(0);
        let max_bytes = usize::try_from(request.i32()?).unwrap_or(0);
        let _isolation = request.i8()?;
        let wanted = request.array(|request| {
            let topic = request.string()?;
            let partitions = request.array(|request| {
                let (partition, offset) = (request.i32()?, request.i64()?);
                let max_bytes = usize::try_from(request.i32()?).unwrap_or(0);
                Ok(FetchPartition { partition, offset, max_bytes })
            })?;
            Ok((topic, partitions))
        })?;
        let deadline = Instant::now() + wait;
        let found = loop {
            // Made before the look, so that an append between the look and the wait is not missed.
            let appended = self.appended.notified();
            let (found, bytes, failed) = self.look(&wanted, max_bytes).await;
            let waiting = bytes < min_bytes && !failed;
            if !waiting || tokio::time::timeout_at(deadline, appended).await.is_err() {
                break found;
            }
        };
        answer.i32(0);
        answer.array(&found, |answer, (topic, partitions)| {
            answer.string(topic)?;
            answer.array(partitions, |answer, fetched| {
                let (code, batches) = match &fetched.found {
                    Ok(batches) => (Code::None, batches.as_slice()),
                    Err(code) => (*code, &[][..]),
                };
                answer.i32(fetched.partition);
                answer.i16(code as i16);
                answer.i64(fetched.end);
                // Without transactions all that is there is stable, and none was aborted.
                answer.i64(fetched.end);
                answer.i32(0);
                answer.bytes(batches)
            })
        })
    }

    /// What there is now, its bytes, and whether a partition gives an error.
    async fn look<'a>(
        &self,
        wanted: &'a [(String, Vec<FetchPartition>)],
        max_bytes: usize,
    ) -> (Vec<(&'a str, Vec<Fetched>)>, usize, bool) {
        let mut topics = self.topics.lock().await;
        let (mut bytes, mut failed) = (0, false);
        let mut found = Vec::with_capacity(wanted.len());
        for (topic, partitions) in wanted {
            let mut of_topic = Vec::with_capacity(partitions.len());
            for FetchPartition { partition, offset, max_bytes: most } in partitions {
                let most = (*most).min(max_bytes.saturating_sub(bytes));
                let log = log_of(&mut topics, topic, *partition);
                let end = log.as_ref().map_or(-1, |log| log.end());
                let batches = match log {
                    // A full answer gives the others their turn in the next one.
                    Ok(_) if most == 0 && bytes > 0 => Ok(Vec::new()),
                    Ok(log) => log.read(*offset, most),
                    Err(code) => Err(code),
                };
                bytes += batches.iter().flatten().map(|batch| batch.len()).sum::<usize>();
                failed |= batches.is_err();
                of_topic.push(Fetched { partition: *partition, end, found: batches });
            }
            found.push((topic.as_str(), of_topic));
        }
        (found, bytes, failed)
    }

    async fn list_offsets(&self, request: &mut Reader<'_>, answer: &mut Writer) -> Result<()> {
        let _replica = request.i32()?;
        let wanted = request.array(|request| {
            Ok((request.string()?, request.array(|request| Ok((request.i32()?, request.i64()?)))?))
        })?;
        let mut topics = self.topics.lock().await;
        answer.array(&wanted, |answer, (topic, partitions)| {
            answer.string(topic)?;
            answer.array(partitions, |answer, (partition, time)| {
                let offset = log_of(&mut topics, topic, *partition).and_then(|log| match *time {
                    LATEST => Ok(log.end()),
                    EARLIEST => Ok(0),
                    _ => Err(Code::UnsupportedForMessageFormat),
                });
                answer.i32(*partition);
                answer.i16(offset.err().unwrap_or(Code::None) as i16);
                answer.i64(-1);
                answer.i64(offset.unwrap_or(-1));
                Ok(())
            })
        })
    }

    async fn metadata(&self, request: &mut Reader<'_>, answer: &mut Writer) -> Result<()> {
        let wanted = request.array_or_null(Reader::string)?;
        let topics = self.topics.lock().await;
        let wanted = wanted.unwrap_or_else(|| topics.keys().cloned().collect());
        answer.array(&[()], |answer, ()| {
            self.write_node(answer)?;
            answer.null_string();
            Ok(())
        })?;
        answer.i32(NODE);
        answer.array(&wanted, |answer, name| {
            let partitions = topics.get(name).map_or(0, Vec::len);
            let code = if partitions == 0 { Code::UnknownTopicOrPartition } else { Code::None };
            answer.i16(code as i16);
            answer.string(name)?;
            answer.bool(false);
            let partitions: Vec<i32> = (0..).take(partitions).collect();
            answer.array(&partitions, |answer, partition| {
                answer.i16(Code::None as i16);
                answer.i32(*partition);
                answer.i32(NODE);
                for _replicas_and_those_in_sync in 0..2 {
                    answer.i32(1);
                    answer.i32(NODE);
                }
                Ok(())
            })
        })
    }

    async fn create_topics(&self, request: &mut Reader<'_>, answer: &mut Writer, version: i16) -> Result<()> {
        let wanted = request.array(|request| {
            let topic = (request.string()?, request.i32()?);
            let _copies = request.i16()?;
            request.array(|request| Ok((request.i32()?, request.array(Reader::i32)?)))?;
            request.array(|request| Ok((request.string()?, request.string_or_null()?)))?;
            Ok(topic)
        })?;
        let _timeout = request.i32()?;
        let only_check = version >= 1 && request.i8()? != 0;
        if version >= 2 {
            answer.i32(0);
        }
        let mut topics = self.topics.lock().await;
        answer.array(&wanted, |answer, (name, partitions)| {
            let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            let code = if name.is_empty() || name.len() > 249 || !name.chars().all(legal) {
                Code::InvalidTopic
            } else if topics.contains_key(name) {
                Code::TopicAlreadyExists
            } else if !(1..=MAX_PARTITIONS).contains(partitions) {
                Code::InvalidPartitions
            } else {
                if !only_check {
                    let logs = (0..*partitions).map(|_| Log::default()).collect();
                    topics.insert(name.clone(), logs);
                }
                Code::None
            };
            answer.string(name)?;
            answer.i16(code as i16);
            if version >= 1 {
                answer.null_string();
            }
            Ok(())
        })
    }

    fn write_node(&self, answer: &mut Writer) -> Result<()> {
        answer.i32(NODE);
        answer.string(&self.address.ip().to_string())?;
        answer.i32(self.address.port().into());
        Ok(())
    }
}

fn api_versions(answer: &mut Writer, code: Code) -> Result<()> {
    answer.i16(code as i16);
    answer.array(APIS, |answer, (key, low, high)| {
        answer.i16(*key);
        answer.i16(*low);
        answer.i16(*high);
        Ok(())
    })
}

fn log_of<'a>(topics: &'a mut Topics, topic: &str, partition: i32) -> Result<&'a mut Log, Code> {
    let log = topics.get_mut(topic).and_then(|logs| logs.get_mut(usize::try_from(partition).ok()?));
    log.ok_or(Code::UnknownTopicOrPartition)
}
