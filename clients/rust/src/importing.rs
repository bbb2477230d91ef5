use std::{collections::VecDeque, time::Duration};

use tokio::{
    sync::mpsc::{self, Sender},
    time::sleep,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

use crate::{
    Connection,
    stubs::soma::batch::v1::{
        FinishImport, ImportChunk, ImportJob, ImportRecordsRequest, ImportRecordsResponse, OpenImport, Record,
        batch_service_client::BatchServiceClient, import_records_request as asked, import_records_response as answered,
    },
};

/// Connections in a row that may break without anything having been acknowledged.
const ATTEMPTS: u32 = 8;
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// No more chunks than a server gives credit for are ever under way.
const UNDER_WAY: usize = 64;

/// Sends the records of one import job and finishes it, through any number of broken connections.
///
/// What was sent is kept until it is acknowledged, so the records may come from a source that can be read only once.
/// What the job has dealt with already is passed over: a process that died is followed by one that imports the same
/// records.
pub struct Import<Records> {
    /// Streams that were opened.
    pub connections: u32,
    client: BatchServiceClient<Connection>,
    import_id: String,
    records: Records,
    chunk_records: usize,
    read: i64,
    acknowledged: i64,
    unacknowledged: VecDeque<ImportChunk>,
}

enum Ending {
    /// The server shuts down and asks to be called again after a while.
    Drained(Duration),
    Failed(Status),
}

impl From<Status> for Ending {
    fn from(status: Status) -> Self {
        Self::Failed(status)
    }
}

impl<Records: Iterator<Item = Record>> Import<Records> {
    /// An import in chunks of so many records, at most 1,000 and 3 MiB.
    pub fn new(
        client: BatchServiceClient<Connection>,
        import_id: impl Into<String>,
        records: impl IntoIterator<IntoIter = Records>,
        chunk_records: usize,
    ) -> Self {
        Self {
            connections: 0,
            client,
            import_id: import_id.into(),
            records: records.into_iter(),
            chunk_records,
            read: 0,
            acknowledged: 0,
            unacknowledged: VecDeque::new(),
        }
    }

    /// The finished job, or the status that ended it.
    pub async fn run(&mut self) -> Result<ImportJob, Status> {
        let mut failed = 0;
        loop {
            let before = self.acknowledged;
            self.connections += 1;
            let wait = match self.connection().await {
                Ok(job) => return Ok(job),
                Err(Ending::Drained(after)) => {
                    failed = 0;
                    after
                }
                Err(Ending::Failed(status)) => {
                    failed = if self.acknowledged > before { 1 } else { failed + 1 };
                    if !is_broken(&status) || failed >= ATTEMPTS {
                        return Err(status);
                    }
                    LONGEST_WAIT.min(FIRST_WAIT * 2_u32.pow(failed))
                }
            };
            sleep(wait).await;
        }
    }

    async fn connection(&mut self) -> Result<ImportJob, Ending> {
        let (sender, sent) = mpsc::channel(UNDER_WAY);
        let open = OpenImport { import_id: self.import_id.clone() };
        send(&sender, asked::Frame::Open(open)).await;
        let mut frames = self.client.import_records(ReceiverStream::new(sent)).await?.into_inner();
        let answered::Frame::Opened(opened) = receive(&mut frames).await? else {
            return Err(Status::unavailable("the server did not open the job").into());
        };
        self.go_on_from(opened.committed_offset);
        let mut again: VecDeque<_> = self.unacknowledged.clone();
        let mut credit = opened.credit;
        loop {
            while credit > 0 {
                let Some(chunk) = again.pop_front().or_else(|| self.next_chunk()) else { break };
                send(&sender, asked::Frame::Chunk(chunk)).await;
                credit -= 1;
            }
            if self.unacknowledged.is_empty() {
                break;
            }
            if let answered::Frame::Ack(ack) = receive(&mut frames).await? {
                self.acknowledge(ack.committed_offset);
                credit += ack.credit;
            }
        }
        send(&sender, asked::Frame::Finish(FinishImport { total: self.read })).await;
        loop {
            if let answered::Frame::Finished(finished) = receive(&mut frames).await? {
                return Ok(finished.job.unwrap_or_default());
            }
        }
    }

    /// Passes over what the job has dealt with.
    fn go_on_from(&mut self, offset: i64) {
        self.acknowledge(offset);
        while self.read < offset && self.records.next().is_some() {
            self.read += 1;
        }
    }

    fn acknowledge(&mut self, offset: i64) {
        self.acknowledged = self.acknowledged.max(offset);
        while self.unacknowledged.front().is_some_and(|chunk| chunk.offset + chunk.records.len() as i64 <= offset) {
            self.unacknowledged.pop_front();
        }
    }

    /// Reads the next records and keeps them until they are acknowledged.
    fn next_chunk(&mut self) -> Option<ImportChunk> {
        let records: Vec<_> = self.records.by_ref().take(self.chunk_records).collect();
        if records.is_empty() {
            return None;
        }
        let chunk = ImportChunk { offset: self.read, records };
        self.read += chunk.records.len() as i64;
        self.unacknowledged.push_back(chunk.clone());
        Some(chunk)
    }
}

/// A stream that has ended takes nothing more; reading tells why.
async fn send(sender: &Sender<ImportRecordsRequest>, frame: asked::Frame) {
    let _ = sender.send(ImportRecordsRequest { frame: Some(frame) }).await;
}

async fn receive(frames: &mut Streaming<ImportRecordsResponse>) -> Result<answered::Frame, Ending> {
    match frames.message().await?.and_then(|response| response.frame) {
        Some(answered::Frame::Drain(drain)) => {
            let after = drain.reconnect_after.unwrap_or_default();
            Err(Ending::Drained(Duration::try_from(after).unwrap_or_default()))
        }
        Some(frame) => Ok(frame),
        None => Err(Status::unavailable("the import's stream ended early").into()),
    }
}

/// Tells a lost connection, which has no reason, from a refusal, which has one.
fn is_broken(status: &Status) -> bool {
    if status.get_details_error_info().is_some() {
        return status.code() == Code::Unavailable;
    }
    matches!(status.code(), Code::Unavailable | Code::Internal | Code::Unknown | Code::Cancelled)
}
