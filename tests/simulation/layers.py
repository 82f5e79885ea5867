"""The protocol's guards, each a switch: all on is the real thing, a mutant turns some off."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Which guards are in place."""

    # --- the store: leases ---------------------------------------------------------------------
    #: Each lease of a pack has a token of its own.
    bumps_token: bool = True
    #: A lease leaves out rows that have a committed part.
    excludes_done: bool = True
    #: A lease leaves out rows of withdrawn batches.
    excludes_withdrawn: bool = True
    #: Withdrawing a batch discards the waiting packs it empties.
    sweeps_withdrawn: bool = True
    #: A lease passes over, and discards, a waiting pack without rows.
    discards_empty: bool = True
    #: A worker that is lost, draining or stopped gets no lease.
    refuses_gone_workers: bool = True
    #: Leasing is a sign of life, as a heartbeat is.
    lease_is_life: bool = True
    #: A heartbeat extends a lease only under its own token.
    renews_by_token: bool = True

    # --- the store: commits --------------------------------------------------------------------
    #: A commit needs the pack's current token.
    fences_commit: bool = True
    #: A commit whose part is there already changes nothing.
    dedups_part: bool = True
    #: ... and charges nothing.
    dedups_charge: bool = True
    #: A row is in at most one part.
    rows_unique: bool = True
    #: A span starts where the worker's metered life ends.
    guards_interval: bool = True
    #: A ledger entry is unique by worker, start and account.
    keys_ledger: bool = True
    #: A refused commit charges nobody.
    late_is_waste: bool = True
    #: A span's cost is split with nothing lost.
    splits_exactly: bool = True

    # --- the store: ends of attempts -----------------------------------------------------------
    #: Finishing needs the pack's current token.
    fences_finish: bool = True
    #: A pack is done when no row is left, whatever the worker says.
    counts_rows_left: bool = True
    #: A preempted attempt spends nothing.
    preemption_is_free: bool = True
    #: A pack of several rows that keeps failing is halved, not convicted whole.
    bisects: bool = True
    #: A child of a bisection is suspect from the start.
    children_are_suspect: bool = True
    #: Only failures of attempts that asked for the row alone convict it.
    convicts_alone: bool = True
    #: A convicted pack waits for the convictor; workers do not lease it.
    holds_convicted: bool = True

    # --- the scheduler -------------------------------------------------------------------------
    #: A rescue ends the attempt as lost, with all that follows.
    rescue_finishes: bool = True
    #: A rescue looks at the expiry again in its own write.
    rescue_rechecks_expiry: bool = True
    #: A rescue names the token it saw expire.
    rescue_names_token: bool = True
    #: Declaring a worker lost looks at its last sign of life again.
    lost_rechecks_silence: bool = True
    #: Declaring a worker lost ends its leases in the same transaction.
    lost_ends_leases: bool = True
    #: Declaring a worker lost closes its metered life at the last uptime it reported.
    closes_tail: bool = True
    #: Nothing leads out of lost.
    lost_is_final: bool = True
    #: A lost worker's late span counts from where its life was closed.
    clips_late: bool = True
    #: A withdrawn batch is sealed only when no lease asks for its rows.
    seal_waits: bool = True

    # --- the worker ----------------------------------------------------------------------------
    #: The object is in the store before the commit names it.
    puts_before_commit: bool = True
    #: The attempt is finished after its last commit.
    commits_before_finish: bool = True
    #: Every span is metered, idle ones too.
    meters_idle: bool = True
    #: A retry repeats the same commit, not a new one with a new part id.
    retries_same_commit: bool = True
    #: Work whose commit was refused is metered as late.
    meters_late: bool = True


REAL = Layers()
