# Messages between a worker (or an embedded cluster) and its keeper, over one UNIX stream socket in
# the worker's state directory, as plain Cap'n Proto stream framing: no RPC, so that the keeper
# stays small. See docs/protocol.md.
@0xd2b1a3f0c4e59687;
using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("pesc::protocol::keeper");

struct Key {
  job @0 :UInt64;
  rank @1 :UInt32;
  attempt @2 :UInt32;
}

struct ToKeeper {
  union {
    hello :group { version @0 :UInt32; detachedLimitMs @14 :UInt64; containment @15 :UInt8;
                   relax @16 :Bool; }              # answered by `welcome`
    # detachedLimitMs: without a worker for this long, the keeper ends what runs; 0: never
    # containment: a Mode of containment/mode.h. relax: the worker moved itself into the cgroup it is
    # in, so the next one starts in the one above, which then must not limit others
    start @1 :Start;                               # answered by `started` or `exited`
    stop :group { key @2 :Key; reason @3 :UInt8; graceMs @4 :UInt64;    # SIGTERM, grace, SIGKILL
                  unlessBegun @19 :Bool; }         # what runs by now runs on
    freeze :group { key @5 :Key; frozen @6 :Bool; }
    forget @7 :Key;                                # the worker has what it needs of a finished one
    readOutput :group { key @8 :Key; stream @9 :UInt8; offset @10 :UInt64; maxBytes @11 :UInt32;
                        ticket @12 :UInt64; }
    shutdown :group { graceMs @13 :UInt64; }      # stop everything, then end
    throttle :group { key @17 :Key; percent @18 :UInt32; }  # of its cpus; 100: as before
  }
}

struct Start {
  key @0 :Key;
  argv @1 :List(Data);
  environment @2 :List(Data);          # "NAME=value"
  workingDirectory @3 :Data;
  searchPath @4 :Data;                 # PATH to find a bare program name on
  runAs @5 :Bool;
  uid @6 :UInt32;
  gid @7 :UInt32;
  timeLimitMs @8 :UInt64;              # 0: none
  graceMs @9 :UInt64;
  outputLimitBytes @10 :UInt64;        # of each stream; 0: none
  spillDirectory @11 :Data;            # where a stream that outgrows memory goes: stdout, stderr
  readOnlyBinds @12 :List(Bind);       # mounted in a mount namespace of the attempt, where one can be made
  unused13 @13 :Data;
  lease @14 :Data;                     # opaque to the keeper; returned in `welcome`
  idlePriority @15 :Bool;
  memoryLimitBytes @16 :UInt64;        # of the whole tree; 0: none
  cpusMilli @17 :UInt32;               # it gets no more than these; 0: no bound
  processLimit @18 :UInt32;            # processes and threads of the tree; 0: none
  # It waits here and begins, in the order of arrival, when fewer of its job run than these. One that
  # still waits when the worker is gone is forgotten. 0: it begins at once.
  mostOfJob @19 :UInt32;
}

struct Bind { source @0 :Data; target @1 :Data; }

struct FromKeeper {
  union {
    welcome :group { version @0 :UInt32; keeperPid @1 :UInt32; attempts @2 :List(Attempt);
                     containment @12 :Text; lacking @13 :Text;
                     holdsNext @14 :Bool; }        # it knows mostOfJob and unlessBegun
    started :group { key @3 :Key; pid @4 :UInt32; startedUnixMs @5 :Int64; bindsDone @6 :Bool; }
    exited @7 :Exit;
    output :group { ticket @8 :UInt64; data @9 :Data; end @10 :Bool; found @11 :Bool; }
  }
}

struct Attempt {
  key @0 :Key;
  lease @1 :Data;
  running @2 :Bool;
  startedUnixMs @3 :Int64;
  exit @4 :Exit;                       # when not running
  pid @5 :UInt32;                      # of the program, when it runs
}

struct Exit {
  key @0 :Key;
  # The class of the end as the keeper knows it: an EndReason of model/outcome.h.
  reason @1 :UInt8;
  exitCode @2 :Int32;
  signal @3 :Int32;
  detail @4 :Text;
  startedUnixMs @5 :Int64;             # 0: it has not begun
  durationMs @6 :UInt64;               # frozen and suspended time not counted
  cpuMs @7 :UInt64;
  maxRssBytes @8 :UInt64;
  standardOutput @9 :Data;             # whole, when it fits 64 KiB; else in spillDirectory/stdout
  standardError @10 :Data;
  outputSpilled @11 :Bool;
  errorSpilled @12 :Bool;
  survivors @13 :UInt32;               # processes that outlived the program and were ended
  writtenBytes @14 :UInt64;            # to files on disks
}
