# The shapes of calls that scripts/bench compares; shapes.proto has the same for gRPC.
@0xc1d0b5a3f4e29786;
using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("pesc::bench::shapes");

interface Sink {
  write @0 (data :Data) -> stream;
  finish @1 () -> (count :UInt64);
  writeMany @2 (items :List(Data)) -> stream;
}

interface Shapes {
  echo @0 (data :Data) -> (data :Data);
  pull @1 (count :UInt64, sizeBytes :UInt32, sink :Sink, gathered :Bool) -> ();
  # A stream from the server: as many messages to `sink`.
  push @2 () -> (sink :Sink);
  # A stream to the server.
}
