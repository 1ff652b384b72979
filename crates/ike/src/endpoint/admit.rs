//! First requests: who is let in (RFC 7296 2.6).

use super::*;

impl Endpoint {
    /// IKE_SA_INIT from a peer: nothing is kept before all that is cheap has been checked.
    pub(super) fn first_request(
        &mut self,
        now: Now,
        arrived: Arrived<'_>,
        directory: &dyn Directory,
    ) -> Result<(), Misbehaviour> {
        let header = arrived.header;
        if header.spi_i.0 == 0
            || header.spi_r.0 != 0
            || header.message_id != 0
            || !header.flags.initiator
        {
            return Err(Misbehaviour::Malformed);
        }
        if let Some(id) = self.inits.get(&(arrived.remote, header.spi_i)).copied() {
            let mut result = Ok(());
            self.with(now, id, |cx, sa| result = sa.repeat_init(cx, arrived));
            return result;
        }
        let request = Request::read(arrived.bytes).inspect_err(|what| {
            if *what == Misbehaviour::UnknownCritical && directory.is_known(arrived.remote.ip()) {
                init::refuse_critical(&mut self.cx, arrived);
            }
        })?;
        let config = directory
            .responder(arrived.local.ip(), arrived.remote)
            .ok_or(Misbehaviour::NotAPeer)?;
        let known = directory.is_known(arrived.remote.ip());
        self.admit(now, arrived, &request, known, directory.load())?;
        match request.judge(&self.cx, &config) {
            Verdict::Accept(chosen) => {
                let mut sa = request.accept(&mut self.cx, config, now, arrived, chosen)?;
                sa.began = now.at;
                self.inits.insert((arrived.remote, header.spi_i), sa.id);
                self.half_open.begin(sa.id, arrived.remote.ip(), known);
                self.insert(Box::new(sa));
            }
            Verdict::OtherKe(ke) => {
                let data = ke.0.to_be_bytes().to_vec();
                init::refuse(&mut self.cx, arrived, NotifyType::INVALID_KE_PAYLOAD, data);
            }
            Verdict::OtherCluster => {
                init::refuse_other_cluster(&mut self.cx, arrived, &config);
                let id = self.cx.fresh_ike_id();
                let (remote, reason) = (arrived.remote.ip(), Failure::OtherCluster);
                self.cx.event(Event::IkeDown { id, remote, reason });
            }
            Verdict::NoProposal => {
                init::refuse_proposals(&mut self.cx, arrived, &config);
                let id = self.cx.fresh_ike_id();
                let reason = request.no_proposal(&config);
                self.cx.event(Event::IkeDown { id, remote: arrived.remote.ip(), reason });
            }
        }
        Ok(())
    }

    /// Bounds of half-open SAs and of work, and the cookie (RFC 7296 2.6). A known peer is asked for one only when
    /// there is much to do, half of all that is allowed is taken, or several by its address, which honest members do not do; and as
    /// long as it was asked once, as then it signs the request that has one.
    fn admit(
        &mut self,
        now: Now,
        arrived: Arrived<'_>,
        request: &Request,
        known: bool,
        load: Load,
    ) -> Result<(), Misbehaviour> {
        let (total, of_peer) = (self.half_open.total(), self.half_open.of(arrived.remote.ip()));
        let sas = self.cx.ikes_of(arrived.remote.ip()).count();
        let greedy = of_peer >= MAX_HALF_OPEN_PER_PEER || sas >= self.cx.limits.max_sas_of_peer;
        let full =
            total >= self.cx.limits.max_half_open || self.sas.len() >= self.cx.limits.max_ike_sas;
        if full || greedy {
            return Err(Misbehaviour::HalfOpenLimit);
        }
        let many = if known {
            total >= self.cx.limits.max_half_open.div_ceil(2)
        } else {
            self.half_open.strangers() >= self.cx.limits.cookie_threshold
        };
        let asked = self.asked.has(arrived.remote, arrived.header.spi_i);
        let must_show = many || asked || load >= Load::Heavy || of_peer >= UNPROVEN_PER_PEER;
        if must_show && !self.shows_cookie(now, arrived, request) {
            return Err(Misbehaviour::HalfOpenLimit);
        }
        if load == Load::Full { Err(Misbehaviour::Busy) } else { Ok(()) }
    }

    /// Whether the request has a valid cookie; else it is answered with one.
    fn shows_cookie(&mut self, now: Now, arrived: Arrived<'_>, request: &Request) -> bool {
        let claim =
            Claim { ni: &request.nonce, ip: arrived.remote.ip(), spi_i: arrived.header.spi_i };
        let provider = self.cx.provider.clone();
        if let Some(cookie) = &request.cookie
            && self.cookies.check(&*provider, now.at, claim, cookie)
        {
            return true;
        }
        if let Ok(cookie) = self.cookies.issue(&*provider, now.at, claim) {
            self.asked.note(arrived.remote, arrived.header.spi_i);
            init::refuse(&mut self.cx, arrived, NotifyType::COOKIE, cookie);
        }
        false
    }
}
