//! Drives one session: turns its effects into calls and reports, and what comes back into its inputs.

use super::call::{self, Errand, Guard};
use super::{Inner, Report};
use crate::journal::Event;
use crate::session::{Answer, CallId, Effect, Input, Session};
use crate::trouble::Trouble;
use crate::verdict::Verdict;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;

/// What a drive listens to and speaks to.
pub(super) struct Lines {
    pub(super) control: mpsc::UnboundedReceiver<Input>,
    pub(super) reports: mpsc::UnboundedSender<Report>,
    pub(super) guard: Guard,
}

struct Drive {
    inner: Arc<Inner>,
    session: Session,
    errand: Errand,
    reports: mpsc::UnboundedSender<Report>,
    answers: mpsc::UnboundedSender<(CallId, Answer)>,
    stops: BTreeMap<CallId, watch::Sender<bool>>,
}

/// Runs `session` until every call of it has come back.
pub(super) async fn drive(inner: Arc<Inner>, session: Session, lines: Lines) {
    let Lines { mut control, reports, guard } = lines;
    let order = Arc::new(session.plan().order.clone());
    let key = super::key_of(&order);
    let over_boottime = super::clock::boottime().saturating_add(order.allowed);
    let (answers, mut answered) = mpsc::unbounded_channel();
    let errand = Errand { order, key, guard, over_boottime };
    let mut drive = Drive { inner, session, errand, reports, answers, stops: BTreeMap::new() };
    let mut input = Input::Tick;
    loop {
        drive.step(input).await;
        if drive.session.is_finished() {
            break;
        }
        let wake = drive.session.deadline().map(|moment| drive.inner.clock.instant(moment));
        let slept = async {
            match wake {
                Some(wake) => sleep_until(wake).await,
                None => std::future::pending().await,
            }
        };
        // In this order: what came back is taken before time is looked at.
        input = tokio::select! {
            biased;
            Some((call, answer)) = answered.recv() => {
                drive.stops.remove(&call);
                Input::Answered { call, answer }
            }
            Some(told) = control.recv() => told,
            () = slept => Input::Tick,
        };
    }
    drive.finish().await;
}

impl Drive {
    async fn step(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.session.step(self.inner.clock.now(), input, &mut effects);
        for effect in effects {
            match effect {
                Effect::Call { call, device, act, limit } => self.call(call, &device, (act, limit)),
                Effect::Stop { call } => {
                    if let Some(stop) = self.stops.get(&call) {
                        stop.send_replace(true);
                    }
                }
                Effect::Note(note) => {
                    self.inner.scribe.note(Some(&self.errand.key), &Event::Noted { note: &note });
                    self.report(Report::Noted { at: self.inner.clock.now(), note });
                }
                Effect::Conclude(verdict) => self.conclude(verdict).await,
            }
        }
    }

    fn call(
        &mut self,
        call: CallId,
        device: &crate::name::DeviceName,
        (act, limit): (crate::session::Act, crate::moment::Moment),
    ) {
        let (stop, stopped) = watch::channel(false);
        self.stops.insert(call, stop);
        let answers = self.answers.clone();
        let Some(slot) = self.inner.slot(device) else {
            let because = "it isn't configured here any more".to_owned();
            let trouble = Trouble::Unusable { because };
            let answer = match act {
                crate::session::Act::Read => Answer::Read(Err(trouble)),
                crate::session::Act::Off => Answer::Off(Err(trouble)),
            };
            let _ = answers.send((call, answer));
            return;
        };
        let (inner, errand) = (self.inner.clone(), self.errand.clone());
        tokio::spawn(async move {
            let answer = call::perform(inner, errand, slot, (act, limit, stopped)).await;
            let _ = answers.send((call, answer));
        });
    }

    async fn conclude(&mut self, verdict: Verdict) {
        let told = self.session.told();
        let silences = self.inner.silences(&verdict);
        tracing::info!(host = %self.errand.key.target, he = self.errand.key.he, because = %verdict, "fencing concluded");
        // The evidence stands whether or not its record can be written: it was observed.
        if let Err(error) =
            self.inner.scribe.record(Some(&self.errand.key), &Event::Concluded { verdict: &verdict }).await
        {
            tracing::error!(because = error, "the verdict could not be recorded");
        }
        self.report(Report::Concluded { at: self.inner.clock.now(), verdict, silences, told });
    }

    fn report(&self, report: Report) {
        // Nobody may be listening any more; the session goes on to its end all the same.
        let _ = self.reports.send(report);
    }

    async fn finish(self) {
        for device in self.session.told() {
            if let Some(slot) = self.inner.slot(&device) {
                slot.device.quiet().await;
            }
        }
        let _ = self.inner.scribe.record(Some(&self.errand.key), &Event::Finished).await;
        self.inner.task_finished(&self.errand.key);
        self.report(Report::Finished { at: self.inner.clock.now() });
    }
}
