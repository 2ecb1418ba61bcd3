//! Opens and reads files for downloads in a thread of its own, so that a slow disk stops no other answer.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use bytes::Bytes;
use common::limits;

use crate::api::http::BadRequest;
use crate::api::{Body, Response};

/// Jobs that wait to be done: one for each connection at most, see `limits.api_connections`.
const JOBS_MAX: usize = 1024;

/// An answer as the wire needs it: its length is known.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) payload: Payload,
}

/// Its body.
#[derive(Debug)]
pub(super) enum Payload {
    Bytes(Bytes),
    /// So many bytes, which come in pieces.
    Pieces(u64),
}

/// A download under way.
#[derive(Debug)]
pub(super) struct Download {
    pub(super) file: Arc<File>,
    pub(super) at: u64,
    pub(super) len: u64,
}

/// The reading thread; it ends when this is dropped.
pub(super) struct Downloads {
    jobs: SyncSender<Box<dyn FnOnce() + Send>>,
}

impl Answer {
    /// An answer with a body in memory; the path, if the body is a file.
    pub(super) fn try_new(response: Response) -> Result<Answer, (Response, PathBuf)> {
        match response.body {
            Body::Bytes(body) => {
                let (status, content_type) = (response.status, response.content_type);
                Ok(Answer { status, content_type, payload: Payload::Bytes(body) })
            }
            Body::File(ref path) => {
                let path = path.clone();
                Err((response, path))
            }
        }
    }

    pub(super) fn refusal(bad: BadRequest) -> Answer {
        Answer::memory(bad.into())
    }

    /// For answers that are made here and never are files.
    pub(super) fn memory(response: Response) -> Answer {
        Answer::try_new(response).unwrap_or(Answer {
            status: 500,
            content_type: "text/plain",
            payload: Payload::Bytes(Bytes::new()),
        })
    }
}

impl Payload {
    pub(super) fn len(&self) -> u64 {
        match self {
            Payload::Bytes(body) => body.len() as u64,
            Payload::Pieces(len) => *len,
        }
    }
}

impl Downloads {
    pub(super) fn start() -> std::io::Result<Downloads> {
        let (jobs, queue) = sync_channel::<Box<dyn FnOnce() + Send>>(JOBS_MAX);
        std::thread::Builder::new().name("api-files".to_owned()).spawn(move || {
            for job in queue {
                job();
            }
        })?;
        Ok(Downloads { jobs })
    }

    /// Opens a regular file. False: too many jobs wait.
    pub(super) fn open(&self, path: PathBuf, deliver: impl FnOnce(Option<Download>) + Send + 'static) -> bool {
        let open = move || {
            let file = File::open(path).ok()?;
            let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
            Some(Download { file: Arc::new(file), at: 0, len: metadata.len() })
        };
        self.jobs.try_send(Box::new(move || deliver(open()))).is_ok()
    }

    /// Reads the next piece; none is delivered when the file has become shorter or the disk failed. False: too many jobs
    /// wait.
    pub(super) fn read(&self, download: &mut Download, deliver: impl FnOnce(Option<Bytes>) + Send + 'static) -> bool {
        let left = usize::try_from(download.len - download.at).unwrap_or(usize::MAX);
        let (bytes, at, file) = (left.min(limits::API_CHUNK_BYTES), download.at, download.file.clone());
        download.at += bytes as u64;
        let read = move || {
            let mut buffer = vec![0; bytes];
            file.read_exact_at(&mut buffer, at).ok().map(|()| buffer.into())
        };
        self.jobs.try_send(Box::new(move || deliver(read()))).is_ok()
    }
}
