"""The launch, in order (design §4), once its facts are gathered: plan, proof, preparation, start, measurement, gate.

Whatever fails, and whenever the user interrupts, everything that was made is unmade, and the error names
the step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial

import msgspec

from coding_agents.app.bring_up import Guarding, bring_up
from coding_agents.app.config_volume import fill_config
from coding_agents.app.credentials import SessionCredentials, session_credentials
from coding_agents.app.demands import require_enforceable
from coding_agents.app.disk_quota import Disk, decide_disk, full_disk_named
from coding_agents.app.egress import host_proxy_place, list_is_managed, require_rules, session_egress
from coding_agents.app.failed_start import discard, enforcement_failures_recorded, kept_log_named
from coding_agents.app.gather import Gathered
from coding_agents.app.guest import guest_config
from coding_agents.app.holder import make_holder, require_holder
from coding_agents.app.instructions import home_files
from coding_agents.app.launch_images import LaunchImages, ensure_images, known_images
from coding_agents.app.launch_plan import launch_guarding, launch_plan, launch_record, launch_runtime
from coding_agents.app.launch_request import LaunchRequest
from coding_agents.app.mcp_session import SessionServers, session_servers
from coding_agents.app.naming import Naming, choose_name, make_room, require_archivable, require_free_branch
from coding_agents.app.narrate import Narrator
from coding_agents.app.prepare import (
    Source,
    fill_home,
    fill_workspace,
    make_volume,
    prepare_source,
    require_own_volumes,
)
from coding_agents.app.signing import give_key, record_key
from coding_agents.app.steps import Parallel, Step, Trace, Undo
from coding_agents.config.environ import HostEnvironment
from coding_agents.engine.api import Engine
from coding_agents.errors import CodingAgentsError, SessionExistsError
from coding_agents.gitsync.branches import BranchState
from coding_agents.images.api import ImageRef
from coding_agents.mcp.apart import write_given
from coding_agents.model.audit import RecordType
from coding_agents.model.limits import NO_DISK
from coding_agents.model.session import SessionRecord
from coding_agents.quota.image import Image
from coding_agents.quota.window import release
from coding_agents.sandbox.invariants import check_spec
from coding_agents.sandbox.plan import SessionPlan
from coding_agents.sandbox.protections import Enforced
from coding_agents.sandbox.spec import Network
from coding_agents.store.leftovers import finish_removals
from coding_agents.store.sessions import SessionStore
from coding_agents.supervisor.context import SessionContext
from coding_agents.supervisor.credentials_kept import write_given as give_credentials
from coding_agents.supervisor.disk import disk_opened, make_disk
from coding_agents.supervisor.egress_kept import write_egress
from coding_agents.supervisor.guest_program import GuestProgram, ensure_guest_volume
from coding_agents.supervisor.origin_kept import give_origins
from coding_agents.supervisor.protocol import Op
from coding_agents.supervisor.registry_kept import settings_registries
from coding_agents.supervisor.registry_kept import write_given as give_registries
from coding_agents.supervisor.removal import remove_engine_objects

_NAMINGS = 10  # each further one means that another launch went ahead of this one


class _OutrunError(Exception):
    """Another launch took the name or the branch between our choice and our record."""


class Launched(msgspec.Struct, frozen=True):
    """What became of a launch.

    `enforced` is None and `source` too when the session was there already (`joined`), or when only the plan
    was asked for (`plan` without `session`).
    """

    trace: Trace
    session: SessionContext | None = None
    plan: SessionPlan | None = None
    enforced: Enforced | None = None
    source: Source | None = None
    joined: bool = False


class Launch(msgspec.Struct):
    """One launch under way. `run` is called once; `on_gate` just before the agent may begin."""

    request: LaunchRequest
    env: HostEnvironment
    store: SessionStore
    narrator: Narrator
    facts: Gathered
    trace: Trace
    on_gate: Callable[[SessionContext], None] | None = None
    servers: SessionServers = SessionServers()
    disk: Disk = Disk()
    credentials: SessionCredentials = SessionCredentials()
    gitconfig: bytes = b""

    def run(self) -> Launched:
        """Carry the request out. Raises what the steps raise; then nothing is left of the launch."""
        with self.trace.step("mcp"):
            runtime = launch_runtime(self.request, self.facts.engine.info)
            self.servers = session_servers(
                self.env, self.facts.repo, self.facts.manifest.mcp, runtime=runtime
            )
        self.credentials = session_credentials(self.env, self.request.settings)
        for _ in range(_NAMINGS):
            with suppress(_OutrunError):
                return self._run(self.facts)
        raise SessionExistsError(
            "launches that run at the same time took every name that this one chose",
            hint="Launch again, or choose a name with --name and a branch with -b.",
        )

    def _run(self, facts: Gathered) -> Launched:
        """One attempt under the name that is free now. Raises _OutrunError when another launch took it."""
        naming = choose_name(self.request, facts, self.store, self.env)
        if self.request.limits.disk_bytes < NO_DISK and (self.request.options.dry_run or not naming.existing):
            with self.trace.step("disk quota"):
                self.disk = decide_disk(self.request, facts, self.env, self.narrator)
        if self.request.options.dry_run:
            return Launched(self.trace, plan=self._dry_plan(facts, naming))
        if naming.existing is not None:
            session = SessionContext(self.env, self.store, naming.existing)
            return Launched(self.trace, session, joined=True)
        if self.request.network is Network.SQUID:
            require_rules(self.env, session_egress(self.request.settings, facts.manifest))
        if facts.signing.note:
            self.narrator.say(facts.signing.note)
        for file, left in self.servers.left:
            self.narrator.say(f"MCP server {left.name} of {file} is not started: {left.reason}")
        for problem in self.credentials.problems:
            self.narrator.say(problem)
        info = facts.engine.info
        require_enforceable(info, self.request.demands, launch_runtime(self.request, info))
        branch = require_free_branch(facts, naming.branch, self.env)
        require_archivable(self.request, naming, branch, self.narrator)
        with self.trace.step("images"):
            images = ensure_images(self.request, facts, self.servers, self.env, self.narrator)
        program = GuestProgram.of_this_version(self.env.data_dir)
        guarding = launch_guarding(self.request, self.env.environ)
        plan = self._plan(naming, program, guarding, images)
        for spec in plan.containers:
            check_spec(spec)
        with Undo() as undo:
            return self._make(facts, naming, plan, program, guarding, branch, images.image, undo)

    def _make(
        self,
        facts: Gathered,
        naming: Naming,
        plan: SessionPlan,
        program: GuestProgram,
        guarding: Guarding,
        branch: BranchState,
        image: ImageRef,
        undo: Undo,
    ) -> Launched:
        """Steps 4 to 9: everything that leaves traces."""
        packages = tuple(lock.digest for lock in self.servers.locks)
        record = launch_record(
            self.request, self.env, facts, naming, plan, program, guarding, image, packages
        )
        session = self._record(record, undo)
        with (
            self.store.lock(record.id),
            kept_log_named(self.store, record.id, undo),
            enforcement_failures_recorded(session),
        ):
            source = self._prepare(
                session,
                facts,
                plan,
                program,
                undo,
                room=lambda: self._begin_branch(session, facts, naming, branch),
            )
            enforced = bring_up(
                session,
                plan,
                guest_config(session, facts.manifest, facts.repo, self.request, tuple(self.servers.started)),
                self.trace,
                guarding=guarding,
                demands=self.request.demands,
                undo=undo,
                fill=lambda: self._fill(session, facts, source),
                on_gate=self.on_gate,
            )
        with suppress(
            CodingAgentsError
        ):  # the agent works; how long we took is no reason to tell of a failure
            self._record_timings(session)
        return Launched(self.trace, session, plan, enforced, source)

    def _record_timings(self, session: SessionContext) -> None:
        detail = {timing.name: f"{timing.took_ms} ms" for timing in self.trace.timings}
        session.supervisor().ask(
            Op.RECORD, type=RecordType.LAUNCH_STEP.value, subject="launch", detail=detail
        )

    def _prepare(
        self,
        session: SessionContext,
        facts: Gathered,
        plan: SessionPlan,
        program: GuestProgram,
        undo: Undo,
        *,
        room: Callable[[], None],
    ) -> Source:
        """Steps 4 to 6: volumes, holder, relay and supervisor side by side, then the container at its gate."""
        engine, record = facts.engine, session.record
        give_key(session)
        write_given(session.directory, self.servers.apart)
        give_registries(session.directory, settings_registries(self.request.settings))
        give_credentials(session.directory, self.credentials.given)
        if plan.door is not None:
            place = host_proxy_place(self.env.environ)
            rules = self._registries(facts, plan.sandbox.image)
            egress = session_egress(self.request.settings, facts.manifest, rules, host_proxy=place)
            write_egress(session.directory, egress)
        undo.add("disk", lambda: release(Image(session.directory)))
        undo.add("engine objects", lambda: remove_engine_objects(engine, plan.identity.nonce))
        # Undone first: a supervisor that sees the container end would begin to salvage it.
        undo.add("supervisor", session.supervisor().quit)
        with ExitStack() as open_disk, Parallel(self.trace) as steps:
            disk = steps.run("disk", lambda: self._open_disk(session, open_disk)) if record.quota else None
            source = steps.run("relay", lambda: self._source(session, facts))
            if self.request.settings.credentials_gitconfig:
                steps.run("gitconfig", self._read_gitconfig)
            origin = steps.run("origin", lambda: give_origins(session, self.request.settings))
            guest = steps.run("guest", lambda: self._guest(engine, plan, program))
            volumes = [
                steps.run(f"{volume.name.rpartition('-')[2]} volume", partial(make_volume, engine, volume))
                for volume in plan.own_volumes
            ]
            holder = self._make_holder(steps, engine, plan, (guest, *(volumes if plan.door else ())))
            supervisor = steps.run("supervisor", session.supervisor().ensure)
            for volume in volumes:
                volume.result()
            own = steps.run("own volumes", lambda: require_own_volumes(engine, plan.own_volumes))
            self._fill_config(steps, engine, plan, own)
            guest.result()
            if disk is not None:
                disk.result()
            # Whoever joins its namespace needs the holder; one with a proxy is made and started beside.
            holder_id = holder.result() if holder is not None and plan.door is None else ""
            holds = steps.run("holder start", lambda: engine.start(holder_id)) if holder_id else None
            with self.trace.step("create"):
                container = engine.create(plan.placed(holder_id))
            session.update(container_id=container, holder_id=holder_id)
            if holds is not None:
                holds.result()
            own.result()
            if holder is not None and plan.door is not None and engine.info.gives_volumes:
                holder.result()  # the door is to be root's, and not the agent's
            steps.run("start", lambda: engine.start(container))
            if holder is not None:
                holder_id = holder.result()
                session.update(holder_id=holder_id)
                steps.run("holder check", lambda: require_holder(engine, holder_id, plan))
            source.result()
            if unreached := origin.result():
                self.narrator.say(f"origin is not reached from this session: {unreached}")
            supervisor.result()
            with self.trace.step("branch"):
                room()
        return source.result()

    def _read_gitconfig(self) -> None:
        from coding_agents.workspace.user_gitconfig import user_gitconfig

        self.gitconfig = user_gitconfig(self.env.for_git())

    def _open_disk(self, session: SessionContext, open_disk: ExitStack) -> None:
        make_disk(session)
        open_disk.enter_context(disk_opened(session))

    def _fill(self, session: SessionContext, facts: Gathered, source: Source) -> None:
        container = session.record.container_id
        read = tuple(dict.fromkeys(one.kind for one in settings_registries(self.request.settings)))
        with full_disk_named(self.disk):
            fill_workspace(facts.engine, container, facts, source, self.env)
            seeds = {**home_files(facts.manifest, session.record, read), **self.servers.seeds()}
            seeds |= self.credentials.seeds
            seeds |= {".gitconfig": self.gitconfig} if self.gitconfig else {}
            fill_home(facts.engine, container, seeds, self.credentials.links)

    def _fill_config(self, steps: Parallel, engine: Engine, plan: SessionPlan, own: Step[None]) -> None:
        """Begin to fill the configuration volume once it is known to be ours. Who reads it waits at the gate."""

        def fill() -> None:
            own.result()
            fill_config(engine, plan, self._config_files())

        if plan.config is not None:
            steps.run("config", fill)

    def _make_holder(
        self, steps: Parallel, engine: Engine, plan: SessionPlan, needed: Sequence[Step[None]]
    ) -> Step[str] | None:
        """Begin to make the holder once the volumes that it mounts are there: an engine would make them anew."""
        if plan.holder is None:
            return None

        def make() -> str:
            for one in needed:
                one.result()
            made = make_holder(engine, plan)
            if plan.door is not None:
                engine.start(made)
            return made

        return steps.run("holder", make)

    def _guest(self, engine: Engine, plan: SessionPlan, program: GuestProgram) -> None:
        ensure_guest_volume(engine, program, plan.sandbox.image, suffix=self.facts.session_id)

    def _source(self, session: SessionContext, facts: Gathered) -> Source:
        return prepare_source(
            self.request,
            facts,
            self.env,
            relay_dir=session.directory / "relay.git",
            branch=session.relay.branch,
            now_ms=session.record.created_ms,
            plan=self.disk.copy,
        )

    def _registries(self, facts: Gathered, image: str) -> tuple[str, ...]:
        """The rules for the registries of the session's package managers. What is left out is told."""
        from coding_agents.app.registries import session_registries  # this network mode alone needs it

        with self.trace.step("registries"):
            managed = list_is_managed(self.request.settings)
            found = session_registries(self.env, facts.engine, image, facts.manifest.name, managed=managed)
        for problem in found.problems:
            self.narrator.say(problem)
        return found.rules

    def _dry_plan(self, facts: Gathered, naming: Naming) -> SessionPlan:
        images = known_images(self.request, facts, self.servers, self.env, self.narrator)
        program = GuestProgram.of_this_version(self.env.data_dir, keep=False)
        guarding = launch_guarding(self.request, self.env.environ)
        plan = self._plan(naming, program, guarding, images)
        for spec in plan.containers:
            check_spec(spec)
        return plan

    def _plan(
        self, naming: Naming, program: GuestProgram, guarding: Guarding, images: LaunchImages
    ) -> SessionPlan:
        return launch_plan(
            self.request,
            self.facts,
            naming,
            program,
            guarding,
            images,
            state_dir=self.env.state_dir,
            config=bool(self._config_files()),
            disk_bytes=self.disk.size_bytes,
        )

    def _config_files(self) -> dict[str, tuple[bytes, bool]]:
        return {**self.servers.volume(self.facts.manifest.mcp), **self.credentials.volume}

    def _record(self, record: SessionRecord, undo: Undo) -> SessionContext:
        """Make the session's directory and its record: from here on `list` and `prune` know of it."""
        undo.add(f"session {record.id}", lambda: discard(self.store, record.id))
        finish_removals(self.store)
        self.store.create(record.id)
        if not self.store.register(record):
            raise _OutrunError
        session = SessionContext(self.env, self.store, record)
        session.engine = self.facts.engine  # found by the same rules: no need to ask it again about itself
        return session

    def _begin_branch(
        self, session: SessionContext, facts: Gathered, naming: Naming, branch: BranchState
    ) -> None:
        """See that the session's branch is free, and record what the session begins with."""
        now_ms = session.record.created_ms
        tip = make_room(facts, naming, branch, self.env, self.narrator, now_ms=now_ms)
        session.update(branch_tip=tip)
        session.supervisor().ask(
            Op.RECORD,
            type=RecordType.SESSION_CREATED.value,
            subject=naming.name,
            detail={
                "repo": session.record.repo.path,
                "base": session.record.base,
                "origin_push": str(session.record.origin_push),
            },
        )
        record_key(session)
        if self.servers.started:
            session.supervisor().ask(
                Op.RECORD,
                type=RecordType.LAUNCH_STEP.value,
                subject="mcp",
                detail=dict(self.servers.started),
            )
