//! Public-key work on threads of its own: the loop never waits for it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use crypto::Provider;
use ike::{Done, Job, JobId};
use std::sync::Mutex;
use tokio::sync::mpsc::UnboundedSender;

/// A pool of threads. Its queue is bounded by what makes jobs: one for each IKE SA that this host or
/// its peer is working on, and half-open ones are bounded.
pub struct Jobs {
    queue: Sender<Job>,
}

impl Jobs {
    /// One thread a core; results go to `done`. The threads end when the pool is dropped.
    pub fn start(
        provider: Arc<dyn Provider>,
        done: UnboundedSender<(JobId, Done)>,
    ) -> std::io::Result<Self> {
        let (queue, jobs) = channel();
        let jobs = Arc::new(Mutex::new(jobs));
        for number in 0..thread::available_parallelism().map_or(1, usize::from) {
            let (jobs, provider, done) = (jobs.clone(), provider.clone(), done.clone());
            thread::Builder::new().name(format!("crypto-{number}")).spawn(move || {
                provider.prepare_thread();
                while let Some((id, result)) = next(&jobs).map(|job| work(job, &*provider)) {
                    if done.send((id, result)).is_err() {
                        return;
                    }
                }
            })?;
        }
        Ok(Self { queue })
    }

    /// Queues a job.
    pub fn submit(&self, job: Job) {
        // Fails only if every thread has ended, and they end only with the pool.
        let _ = self.queue.send(job);
    }
}

fn next(jobs: &Mutex<Receiver<Job>>) -> Option<Job> {
    jobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).recv().ok()
}

fn work(job: Job, provider: &dyn Provider) -> (JobId, Done) {
    (job.id, job.work.run(provider))
}
