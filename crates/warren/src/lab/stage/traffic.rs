//! Streams and the wire.

use super::*;

impl Stage<'_> {
    /// Starts a stream for each of these pairs; it goes on in the background.
    pub fn stream(&mut self, pairs: Vec<Pair>) -> Result<(), Stopped> {
        let streams = Streams::start(&self.lab.hosts, pairs, self.began)?;
        let (count, rate) = (streams.book().pairs().len(), streams.rate);
        self.streams = Some(streams);
        self.step(format!("{count} streams of {rate:.0} packets a second begin"));
        Ok(())
    }

    /// The daemons of these hosts start, these pairs talk, and each has one tunnel. The time from which on no packet may be
    /// lost.
    pub fn begin(&mut self, hosts: usize, pairs: &[Pair]) -> Result<Duration, Stopped> {
        self.start_all(0..hosts)?;
        self.talk(pairs.to_vec())?;
        self.must(ALL_UP, "settled pairs", |stage| stage.is_calm(pairs))?;
        Ok(self.now())
    }

    /// Starts a stream for each of these pairs and waits until all are heard. The time from which on
    /// no packet may be lost: the first ones of each pair ask for the SAs, and a kernel does not hold them.
    pub fn talk(&mut self, pairs: Vec<Pair>) -> Result<Duration, Stopped> {
        let begin = self.now();
        self.stream(pairs)?;
        let back = self.must(ALL_UP, "every pair talks", |stage| stage.back(begin, |_| true))?;
        // What was sent before the SAs were there, and held or lost.
        self.wait(Duration::from_millis(500))?;
        let seconds = back.as_secs_f64();
        self.step(format!("all pairs have heard from each other, the last after {seconds:.2} s"));
        Ok(self.now())
    }

    /// Streams for more pairs, beside those that run.
    pub fn more_streams(&mut self, pairs: Vec<Pair>) {
        if let Some(streams) = &self.streams {
            streams.add(pairs);
        }
    }

    /// Only these streams pause from now on.
    pub fn mute(&mut self, of: impl Fn(Pair) -> bool) {
        if let Some(streams) = &self.streams {
            streams.book().mute(of);
        }
    }

    /// Whether a stream pauses.
    pub fn is_muted(&self, pair: Pair) -> bool {
        self.book(|book| book.is_muted(pair))
    }

    /// How long after `since` it took until all of these were heard again; `None` if not yet.
    pub fn back(&self, since: Duration, of: impl Fn(Pair) -> bool) -> Option<Duration> {
        self.streams.as_ref()?.book().back(since, of)
    }

    /// Waits until these are heard of packets sent after `since`; `None` if they are not within `limit`.
    pub fn until_back(
        &mut self,
        since: Duration,
        limit: Duration,
        of: impl Fn(Pair) -> bool + Copy,
    ) -> Result<Option<Duration>, Stopped> {
        self.until(limit, |stage| stage.back(since, of))
    }

    /// Something of the book, as it is now.
    pub fn book<T>(&self, read: impl FnOnce(&Book) -> T) -> T {
        match &self.streams {
            Some(streams) => read(&streams.book()),
            None => read(&Book::new(Vec::new())),
        }
    }

    /// Loss among the packets of these pairs that were sent from `from` until now, after what is under way has arrived.
    pub fn loss(
        &mut self,
        from: Duration,
        of: impl Fn(Pair) -> bool + Copy,
    ) -> Result<Loss, Stopped> {
        let to = self.now();
        self.until(UNDER_WAY, |stage| {
            let late = to.saturating_sub(UNDER_WAY).max(from);
            (stage.book(|book| book.loss(late, to, of)).lost == 0).then_some(())
        })?;
        let loss = self.book(|book| book.loss(from, to, of));
        if loss.lost > 0 {
            let losers = self.book(|book| book.losers(from, to, of));
            for ((a, b), count, first, last) in losers {
                let (first, last) = (first.as_secs_f64(), last.as_secs_f64());
                let (a, b) = (self.name(a), self.name(b));
                let text = format!("{a} to {b} lost {count}, sent at {first:.2} to {last:.2} s");
                self.findings.detail(text);
            }
        }
        Ok(loss)
    }

    /// That none of the packets of these pairs is lost that were sent from `from` until now.
    pub fn no_loss(
        &mut self,
        phase: &str,
        from: Duration,
        of: impl Fn(Pair) -> bool + Copy,
    ) -> Result<(), Stopped> {
        let loss = self.loss(from, of)?;
        let what = format!("{phase}: packets lost of {}", loss.sent);
        // Nothing is lost where nothing is sent.
        self.measure(what, (loss.sent > 0).then_some(loss.lost as f64), Required::Exactly(0.0));
        Ok(())
    }

    /// The streams end; packets a second that each pair had on average.
    pub fn quiet(&mut self) {
        if let Some(streams) = self.streams.take() {
            let wanted = streams.rate;
            let book = streams.finish();
            let rates = book.rates();
            let mean = rates.iter().sum::<f64>() / rates.len().max(1) as f64;
            self.step(format!(
                "the streams end; {mean:.0} packets a second each, of {wanted:.0} wanted"
            ));
        }
    }

    /// What has passed on the wire until now.
    pub fn wire(&self) -> Counts {
        self.watch.as_ref().map(Watch::counts).unwrap_or_default()
    }

    /// That nothing passed in the clear since then, and that the wire was watched without a gap.
    pub fn no_clear(&mut self, phase: &str, since: &Counts) {
        let seen = self.wire().since(since);
        self.exactly(format!("{phase}: packets in the clear"), seen.clear, 0);
        self.watched(&seen);
        for (flow, count) in seen.clear_flows.iter().take(10) {
            self.findings.detail(format!("in the clear: {count} of {flow:?}"));
        }
    }

    /// What the watch missed could have been anything.
    pub fn watched(&mut self, seen: &Counts) {
        if seen.missed > 0 {
            self.exactly("frames that the watch missed", seen.missed, 0);
        }
    }
}
