//! Starts the kernel side: loads and attaches everything.

use anyhow::Context as _;
use aya::maps::{Array, HashMap, PerCpuArray, RingBuf};
use wire::{Attached, Filters, gate};

use super::Tracer;
use crate::{
    load::{
        closed::ClosedListeners,
        held_sockets, hooks, listeners,
        loader::{load, loader, prepare},
        map_sizes::{self, handshake_rows},
        maps::take,
        object::Object,
        open::Open,
        scope::Scope,
        shares::Shares,
        types::Types,
        wanted::want,
        words,
    },
    model::{
        facts::{Fact, WORDS},
        failure::Failure,
    },
};

impl Tracer {
    /// Loads and attaches everything, and shows the kernel side the listeners that exist already.
    ///
    /// # Errors
    /// [`Failure::CannotTrace`] where a privilege, the BTF, or a hook that nothing replaces is missing.
    pub fn start(scope: &Scope) -> Result<Self, Failure> {
        let (kernel, layout) = prepare()?;
        let mut loader = loader(&layout);
        let sockets = held_sockets::object(&mut loader, &kernel);
        let filters = Filters { handshake_rows: handshake_rows(scope.max_open), ..scope.filters };
        loader.override_global("FILTERS", &filters, true);
        let useless = hooks::useless(&scope.only, &kernel);
        map_sizes::set(&mut loader, scope, &useless);
        let mut object = load(&mut loader, Object::LIVE, &kernel, &useless)?;
        // Before they are read another time.
        drop(kernel);
        let mut types = Types::default();
        want(&mut object, scope)?;
        if scope.standby {
            // First: a standby instance that finds no note takes the event for missed.
            let gates = object.map_mut("GATES").context("the BPF object has no map GATES")?;
            let mut gates: Array<_, Attached> = Array::try_from(gates).map_err(anyhow::Error::from)?;
            gates
                .set(gate::ATTACHED, Attached { standby: 1, ..Attached::default() }, 0)
                .map_err(anyhow::Error::from)?;
        }
        let mut plan = hooks::attach(&mut object, &layout, &scope.only, useless, scope.standby, &mut types)?;
        let starts = hooks::attach_starts(&mut object);
        if let (Err(why), false) = (&starts, scope.words) {
            crate::notice!("an nginx that begins later is not seen to: {why}");
        }
        let heard = match scope.words {
            true => starts.and_then(|()| words::load(&mut object)),
            false => Err("its memory was to be left alone (--no-uprobe)".to_owned()),
        };
        let words = match heard {
            Ok(words) => {
                plan.sources.set(Fact::Words, WORDS.to_owned());
                Some(words)
            }
            Err(reason) => {
                plan.missing.push((Fact::Words, reason));
                None
            }
        };
        let mut attached: Array<_, Attached> =
            Array::try_from(take(&mut object, "GATES")?).map_err(anyhow::Error::from)?;
        let what = Attached { standby: u8::from(scope.standby), ..hooks::attached(&plan, &layout) };
        attached.set(gate::ATTACHED, what, 0).map_err(anyhow::Error::from)?;
        let shown = Array::try_from(take(&mut object, "SHOWN")?).map_err(anyhow::Error::from)?;
        let (showing, listeners) = listeners::Showing::begin(&mut object, shown, &mut types)?;
        held_sockets::keep(sockets, &mut types);
        drop(types);
        let stats = PerCpuArray::try_from(take(&mut object, "STATS")?).map_err(anyhow::Error::from)?;
        let foreign = HashMap::try_from(take(&mut object, "FOREIGN")?).map_err(anyhow::Error::from)?;
        let upstreams = HashMap::try_from(take(&mut object, "UPSTREAMS")?).map_err(anyhow::Error::from)?;
        let unix_upstreams =
            HashMap::try_from(take(&mut object, "UNIX_UPSTREAMS")?).map_err(anyhow::Error::from)?;
        let ring = RingBuf::try_from(take(&mut object, "RING")?).map_err(anyhow::Error::from)?;
        let open = Some(Open {
            exchanges: HashMap::try_from(take(&mut object, "EXCHANGES")?).map_err(anyhow::Error::from)?,
            aliases: HashMap::try_from(take(&mut object, "ALIASES")?).map_err(anyhow::Error::from)?,
            max_open: scope.max_open,
            shares: Shares::new(&mut object)?,
        });
        let given_up = open.as_ref().map(|open| open.shares.given_up()).unwrap_or_default();
        let closed = ClosedListeners::new(&mut object)?;
        let masters = Some(HashMap::try_from(take(&mut object, "MASTERS")?).map_err(anyhow::Error::from)?);
        let members = Some(HashMap::try_from(take(&mut object, "MEMBERS")?).map_err(anyhow::Error::from)?);
        let mut tracer = Self {
            object,
            traces_system_calls: false,
            plan,
            layout,
            attached,
            has_standby: scope.standby,
            words,
            believes_all: scope.filters.trusts_all != 0,
            stats,
            foreign,
            upstreams,
            unix_upstreams,
            ring: Some(ring),
            open,
            showing,
            listeners,
            masters,
            members,
            closed,
            given_up,
        };
        if !scope.paths.is_empty() || scope.connect_errors {
            tracer.trace_system_calls()?;
        }
        Ok(tracer)
    }
}
