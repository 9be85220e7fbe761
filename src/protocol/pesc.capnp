# PESC's wire protocol. See docs/protocol.md for the order of calls, limits and versions.
@0xb7a1c8e2f3d45069;
using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("pesc::protocol");

const protocolVersion :UInt32 = 3;
# A connection begins with 8 bytes in each direction, before Cap'n Proto: "PESC", then the version,
# big-endian. Who sends something else is not PESC; who sends another version is told so.

# ---- values ------------------------------------------------------------------------------------

struct BlobRef { digest @0 :Data; sizeBytes @1 :UInt64; }

struct AttemptKey { job @0 :UInt64; rank @1 :UInt32; attempt @2 :UInt32; }

struct FileRef {
  path @0 :Data;                       # bytes: names need not be UTF-8
  kind @1 :UInt8;
  blob @2 :BlobRef;
  mode @3 :UInt32;
}

struct EnvironmentVariable { name @0 :Data; value @1 :Data; }

struct JobSpec {
  name @0 :Data;
  program @1 :Data;
  arguments @2 :List(Data);
  repetitions @3 :UInt32;
  parameters @4 :List(Data);
  files @5 :List(FileRef);
  collect @6 :List(Data);
  inject @7 :UInt8;
  environment @8 :List(EnvironmentVariable);
  cpusMilli @9 :UInt32;
  memoryBytes @10 :UInt64;
  retries @11 :UInt32;
  timeLimitMs @12 :UInt64;
  graceMs @13 :UInt64;
  outputLimitBytes @14 :UInt64;
  room @15 :Data;
  seed @16 :UInt64;
  parallel @17 :Bool;
  sameWorker @18 :Bool;
  maxFailures @19 :UInt32;
  jobTimeLimitMs @20 :UInt64;
  checkpointEveryMs @21 :UInt64;
  secondAttempts @22 :Bool = true;
  priority @23 :Int32;
  diskBytes @24 :UInt64;
  gpusMilli @25 :UInt32;
  gpuMemoryBytes @26 :UInt64;
  gpuExclusive @27 :Bool;
  minComputeCapability @28 :UInt32;    # 8.6 is 806
  named @29 :List(NamedResource);      # sorted by name
  build @30 :Data;                     # shell command that makes the program, once per worker
  buildTimeLimitMs @31 :UInt64;        # 0: half an hour
}

struct NamedResource { name @0 :Text; milli @1 :UInt64; }

struct Gpu {
  uuid @0 :Text;
  name @1 :Text;
  driver @2 :Text;
  computeCapability @3 :UInt32;
  memoryBytes @4 :UInt64;
  takenBytes @5 :UInt64;               # by processes that are not PESC's
  reportsMemory @6 :Bool;              # of each process
  trouble @7 :Text;                    # empty: healthy
  ranksBytes @8 :UInt64;               # by PESC's ranks, as measured
}

struct Outcome {
  reason @0 :UInt8;
  exitCode @1 :Int32;
  signal @2 :Int32;
  detail @3 :Data;
  startedUnixMs @4 :Int64;
  durationMs @5 :UInt64;
  cpuMs @6 :UInt64;
  maxRssBytes @7 :UInt64;
  output @8 :BlobRef;
  uncollected @9 :List(Data);
  refusedArguments @10 :Bool;
  savedMs @11 :UInt64;
  writtenBytes @12 :UInt64;
  peakGpuBytes @13 :UInt64;
}

struct CheckpointFile {
  path @0 :Data;
  kind @1 :UInt8;
  mode @2 :UInt32;
  modifiedUnixMs @3 :Int64;
  target @4 :Data;                     # of a symlink
  chunks @5 :List(BlobRef);            # 4 MiB each, but for a file's last
}
struct CheckpointManifest { files @0 :List(CheckpointFile); }
# A blob of its own, in canonical bytes: equal directories have equal manifests.

# ---- login -------------------------------------------------------------------------------------

interface Front {
  # The bootstrap interface: all that a stranger can call.
  login @0 (token :Text, software :Text) -> (user :UserSession, worker :WorkerSession, admin :Bool);
  # One of the two capabilities, as the token says. Throws "unauthenticated: …" otherwise.
}

# ---- blobs -------------------------------------------------------------------------------------

interface Blobs {
  missing @0 (digests :List(Data)) -> (missing :List(UInt32));
  # Indices of those that the store lacks.

  put @1 (blobs :List(Data)) -> ();
  # Small ones whole; all of them together at most 1 MiB. Durable when answered.

  upload @2 (blob :BlobRef) -> (upload :Upload);
  # Throws "resource exhausted: …" when there is no room.

  read @3 (digest :Data, offset :UInt64, maxBytes :UInt32) -> (data :Data);
  # At most 1 MiB a call; several calls may be in flight. Throws "not found: …".

  readMany @4 (digests :List(Data)) -> (blobs :List(Data));
  # As many of the first ones as fit 1 MiB, at least one: a shorter list is not an error.

  begin @5 (sizeBytes :UInt64) -> (upload :Upload);
  # An upload of bytes that nobody has hashed yet: its `finish` names them. `sizeBytes` of them will
  # come; 0: that is not known yet. No upload: a blob of just that size is here, and it may be this
  # one: hash it, ask for `missing`, and `upload` it by its name. Throws as `upload` does.
}

interface Upload {
  write @0 (offset :UInt64, data :Data) -> ();   # in order, at most 1 MiB; several in flight
  finish @1 () -> (blob :BlobRef);               # verified and durable when answered; its name
}

# What a worker that passes blobs on serves on a port of its own: all that a stranger can call.
interface PassedBlobs {
  open @0 (ticket :Data) -> (blob :PassedBlob);
  # A ticket is 32 random bytes that the coordinator has told both, for one blob, to be used once.
  # Throws "unauthenticated: …" otherwise.
}

interface PassedBlob {
  read @0 (offset :UInt64, maxBytes :UInt32) -> (data :Data);
  # At most 1 MiB a call, shorter only at the end; several calls may be in flight. Waits for bytes that
  # are on their way to that worker itself. Nobody has checked them: the reader checks the whole.
}

const noRevision :UInt64 = 0xffffffffffffffff;

# ---- users -------------------------------------------------------------------------------------

struct JobStatus {
  id @0 :UInt64;
  name @1 :Data;
  owner @2 :Text;
  state @3 :UInt8;
  repetitions @4 :UInt32;
  waiting @5 :UInt32;
  running @6 :UInt32;
  succeeded @7 :UInt32;
  failed @8 :UInt32;
  cancelled @9 :UInt32;
  submittedUnixMs @10 :Int64;
  finishedUnixMs @11 :Int64;           # 0: not yet
  revision @12 :UInt64;                # grows with each change
  committed @13 :UInt32;               # ranks in their final state
  detail @14 :Data;                    # why a job stopped early, one line; else empty
  tally @15 :Tally;
}

struct ReasonCount { reason @0 :UInt8; attempts @1 :UInt32; }

struct Tally {
  # Of all attempts of a job so far, those of before a restart of the coordinator included.
  ended @0 :List(ReasonCount);         # attempts by how they ended; reasons that never were are left out
  usefulMs @1 :UInt64;                 # running time of the attempts that were committed
  redoneMs @2 :UInt64;                 # of the others: what no checkpoint had saved
  checkpoints @3 :UInt32;              # saved
  secondAttempts @4 :UInt32;           # started of slow ranks
  secondWon @5 :UInt32;                # that committed first
  gangStarts @6 :UInt32;               # generations of a parallel job
}

struct RankProgress { rank @0 :UInt32; fraction @1 :Float64; text @2 :Data; worker @3 :Data; }

struct RankInfo {
  rank @0 :UInt32;
  state @1 :UInt8;
  attempts @2 :UInt32;
  worker @3 :Data;
  outcome @4 :Outcome;                 # of the attempt that decided, or of the latest
  gpus @5 :List(Text);                 # uuids that it had
  memoryBytes @6 :UInt64;              # it was placed with; 0: nobody knew
  memoryLimitBytes @7 :UInt64;         # it was held to; 0: not known
  gpuMemoryBytes @8 :UInt64;           # on each of its GPUs: it was placed with; 0: alone, nobody knew
}

struct WorkerStatus {
  id @0 :UInt64;
  name @1 :Data;
  room @2 :Data;
  address @3 :Text;
  state @4 :Text;                      # "attached", "busy", "paused", "draining", "set aside" or "away"
  cpusMilli @5 :UInt32;
  cpusUsedMilli @6 :UInt32;
  memoryBytes @7 :UInt64;
  running @8 :UInt32;
  finished @9 :UInt64;
  software @10 :Text;
  lastSeenUnixMs @11 :Int64;
  warnings @12 :List(Text);
  trouble @13 :Text;                   # why it gets no work although it is attached; else empty
  memoryUsedBytes @14 :UInt64;         # given to attempts
  diskBytes @15 :UInt64;
  diskUsedBytes @16 :UInt64;
  named @17 :List(NamedResource);
  namedUsed @18 :List(NamedResource);
  gpus @19 :List(GpuStatus);
  memoryMeasuredBytes @20 :UInt64;     # of its ranks now; 0: not known
  cpusMeasuredMilli @21 :UInt32;
}

struct GpuStatus {
  gpu @0 :Gpu;
  usedBytes @1 :UInt64;                # given to attempts
  ranks @2 :UInt32;
}

struct WhyLine { ranks @0 :Text; count @1 :UInt32; state @2 :UInt8; reason @3 :Data; }
# ranks: "3", "5-9,12": the ranks that share the reason

interface UserSession {
  blobs @0 () -> (blobs :Blobs);
  submit @1 (id :UInt64, spec :JobSpec) -> ();
  # Durable when answered. The same id with the same spec again is answered the same; with another
  # spec it is refused. Throws "invalid argument: …" or "failed precondition: missing blob …".
  status @2 (id :UInt64) -> (status :JobStatus);
  jobs @3 (before :UInt64, max :UInt32) -> (jobs :List(JobStatus));   # newest first
  follow @4 (id :UInt64, revision :UInt64, committed :UInt32, maxWaitMs :UInt32)
      -> (status :JobStatus, finished :List(RankInfo), progress :List(RankProgress));
  # Answers when the job's revision is not `revision` (they begin anew when the coordinator starts
  # again; noRevision asks not to be told of changes), when more than `committed` ranks are final, when
  # the job is over, or after maxWaitMs (at most 30 s). `finished` goes on from the committed-th, in commit order, at
  # most 1,000 a call.
  ranks @5 (id :UInt64, first :UInt32, max :UInt32) -> (ranks :List(RankInfo));  # by rank, ≤ 1,000
  spec @6 (id :UInt64) -> (spec :JobSpec);
  why @7 (id :UInt64) -> (lines :List(WhyLine));
  cancel @8 (id :UInt64) -> ();
  retry @9 (id :UInt64) -> (ranks :UInt32);      # failed and cancelled ranks that run again
  remove @10 (id :UInt64) -> ();                 # finished jobs only
  readLog @11 (id :UInt64, rank :UInt32, stream :UInt8, attempt :UInt32, offset :UInt64,
               maxBytes :UInt32)
      -> (data :Data, attempt :UInt32, running :Bool);
  # Live output of a running rank: stream 1 is standard output, 2 standard error, 3 the log of its
  # worker's build of the program; attempt 0 asks for the current one. A rank that is final answers
  # running = false and no data: its log is in its output.
  workers @12 () -> (workers :List(WorkerStatus));
  makeToken @13 (role :Text, name :Text) -> (joinFile :Text);    # administrators only
  drain @14 (worker :Text, drain :Bool) -> (id :UInt64, name :Data, attempts :UInt32);
  # Administrators only. By name or id; durable. A draining worker gets no leases, and its attempts
  # are vacated: checkpointed, stopped, and placed elsewhere. drain = false takes it back.
  pause @15 (worker :Text, pause :Bool) -> (id :UInt64, name :Data, attempts :UInt32);
  # Administrators only. By name or id; durable. A paused worker gets no leases, and freezes what it
  # runs. pause = false ends a pause and a drain.
  running @16 (id :UInt64, first :UInt32, max :UInt32) -> (ranks :List(UInt32));
  # Those that run now, in rank order, from `first` on, at most 1,000 a call.
}

# ---- workers -----------------------------------------------------------------------------------

struct WorkerInfo {
  id @0 :UInt64;
  name @1 :Data;
  room @2 :Data;
  cpusMilli @3 :UInt32;
  memoryBytes @4 :UInt64;
  advertise @5 :Text;
  software @6 :Text;
  machine @7 :Text;                    # machine id / boot id, to tell a cloned state directory
  warnings @8 :List(Text);             # e.g. "ranks run as the worker's own user"
  busy @9 :Data;                       # why it takes no new ranks now; empty: it does
  diskBytes @10 :UInt64;               # for attempts
  gpus @11 :List(Gpu);
  named @12 :List(NamedResource);
  passesOn @13 :Bool;                  # others may be sent to it for large blobs
}

struct Holder {
  # A worker that has a blob, or is being given it.
  worker @0 :UInt64;                   # 0: nobody
  address @1 :Text;                    # without the port
  port @2 :UInt16;
  certificate @3 :Text;                # PEM, its own; empty: no TLS, on a loopback address
  ticket @4 :Data;
}

enum PauseOrder { unchanged @0; pause @1; resume @2; }

struct Lease {
  key @0 :AttemptKey;
  spec @1 :JobSpec;                    # comes with the first lease of its job in a session
  hasSpec @2 :Bool;
  checkpoint @3 :Checkpoint;           # to begin from; number 0: from none
  hold @4 :Bool;                       # of a gang: prepare it, say `ready`, start when told
  localRank @5 :UInt32;                # of a gang
  localWorldSize @6 :UInt32;
  memoryLimitBytes @7 :UInt64;         # to hold it to; 0: none
  gpus @8 :List(Text);                 # uuids that it may use
  gpuMemoryLimitBytes @9 :UInt64;      # on each of them; 0: none
}

struct Checkpoint { number @0 :UInt32; manifest @1 :BlobRef; }
# number: of the rank, from 1; manifest: the blob of a CheckpointManifest

struct StartOrder { key @0 :AttemptKey; masterAddr @1 :Text; masterPort @2 :UInt16; }
# The whole gang is ready.

struct ReadyAttempt { key @0 :AttemptKey; masterPort @1 :UInt16; }
# masterPort: of rank 0: a port that was free just now; else 0

struct StopRequest { key @0 :AttemptKey; reason @1 :UInt8; }

struct FinishedAttempt { key @0 :AttemptKey; outcome @1 :Outcome; inlineOutput @2 :Data; }
# inlineOutput: the blob outcome.output names, when it is at most 64 KiB; else it was uploaded.

struct AttemptProgress { key @0 :AttemptKey; fraction @1 :Float64; text @2 :Data; trouble @3 :Data; }
# fraction: below 0: the program has said nothing new, text included.
# trouble: what is wrong with the attempt although it runs (its checkpoints cannot be saved); empty:
# nothing.

interface WorkerSession {
  attach @0 (info :WorkerInfo, holding :List(AttemptKey), sink :WorkerSink)
      -> (leaseMs :UInt64, heartbeatMs :UInt64, stop :List(StopRequest), paused :Bool);
  # holding: every attempt the worker has, running or finished but not acknowledged. Those that the
  # coordinator does not want are named in `stop`.
  report @1 (holding :List(AttemptKey), lastUpdate :UInt64, finished :List(FinishedAttempt),
             progress :List(AttemptProgress), ready :List(ReadyAttempt), busy :Data,
             gpus :List(Gpu), gpusChanged :Bool, memoryMeasuredBytes :UInt64,
             cpusMeasuredMilli :UInt32)
      -> (acknowledged :List(AttemptKey), stop :List(StopRequest));
  # Heartbeat and results in one. Answered when what it brings is durable; what is acknowledged
  # (committed, or not wanted) the worker forgets.
  # ready: every held attempt that is prepared, in every report until it is started.
  # busy: as in WorkerInfo, in every report. gpus: when gpusChanged, as in WorkerInfo.
  # memoryMeasuredBytes, cpusMeasuredMilli: of its ranks together, a few seconds ago at most.
  blobs @2 () -> (blobs :Blobs);
  checkpoint @3 (key :AttemptKey, manifest :BlobRef, chunks :List(BlobRef), savedMs :UInt64)
      -> (number :UInt32);
  # All named blobs have been put before. Durable when answered. savedMs: running time of the attempt
  # when the snapshot was taken. Number 0: it is not wanted (the attempt was revoked). The same
  # manifest again is answered with the same number.
  findHolder @4 (blob :BlobRef, without :List(UInt64), failed :UInt64) -> (holder :Holder);
  # Where to read a large blob that this worker is about to fetch, and which it passes on from now on
  # if it can. Nobody: read it from `blobs`. without: workers not to be sent to; failed: the one of
  # them that the last try has failed with; 0: none.
  fetched @5 (digest :Data, here :Bool) -> ();
  # What findHolder was asked for has come, or will not.
}

interface WorkerSink {
  update @0 (number :UInt64, leases :List(Lease), stop :List(StopRequest), start :List(StartOrder),
             pause :PauseOrder) -> ();
  readLog @1 (key :AttemptKey, stream :UInt8, offset :UInt64, maxBytes :UInt32)
      -> (data :Data, running :Bool);
  passOn @2 (blob :BlobRef, ticket :Data, address :Text) -> (port :UInt16, certificate :Text);
  # Whoever brings the ticket within half a minute is given the blob. address: where others reach this
  # worker. Throws "not found: …" when the blob is neither here nor on its way.
}
