#include "tests/sim/wire.h"

#include <capnp/message.h>
#include <capnp/serialize.h>

#include <string>
#include <utility>

#include "pesc.capnp.h"
#include "protocol/codec.h"

namespace pesc::sim {
namespace {

using protocol::as_data;
using protocol::as_view;
using protocol::encode_list;

Bytes to_bytes(capnp::MessageBuilder& message) {
  auto words = capnp::messageToFlatArray(message);
  return Bytes(words.begin(), words.end());
}

capnp::FlatArrayMessageReader reader_of(const Bytes& bytes) {
  return capnp::FlatArrayMessageReader(kj::arrayPtr(bytes.data(), bytes.size()));
}

std::vector<protocol::Stop> to_wire(const std::vector<coordinator::StopRequest>& stops) {
  std::vector<protocol::Stop> values;
  values.reserve(stops.size());
  for (const auto& stop : stops) values.push_back({stop.key, stop.reason});
  return values;
}

absl::StatusOr<std::vector<worker::UpdateReceived::Stop>> from_wire(
    capnp::List<protocol::StopRequest>::Reader in) {
  auto stops = protocol::decode_list(in);
  if (!stops.ok()) return stops.status();
  std::vector<worker::UpdateReceived::Stop> values;
  values.reserve(stops->size());
  for (const auto& stop : *stops) values.push_back({stop.key, stop.reason});
  return values;
}

}  // namespace

Bytes encode_attach(const AttachRequest& request) {
  capnp::MallocMessageBuilder message;
  auto root = message.initRoot<protocol::WorkerSession::AttachParams>();
  auto info = root.initInfo();
  info.setId(request.info.id.value);
  info.setName(as_data(request.info.name));
  info.setRoom(as_data(request.info.room));
  info.setCpusMilli(request.info.cpus_milli);
  info.setMemoryBytes(request.info.memory_bytes);
  info.setAdvertise(request.info.advertise);
  info.setSoftware(request.info.software);
  info.setMachine(request.info.machine);
  info.setBusy(as_data(request.info.busy));
  info.setDiskBytes(request.info.disk_bytes);
  protocol::encode(info.initNamed(request.info.named.size()), request.info.named);
  encode_list(info.initGpus(request.info.gpus.size()), request.info.gpus);
  encode_list(root.initHolding(request.holding.size()), request.holding);
  return to_bytes(message);
}

absl::StatusOr<AttachRequest> decode_attach(const Bytes& bytes) {
  auto message = reader_of(bytes);
  auto root = message.getRoot<protocol::WorkerSession::AttachParams>();
  auto holding = protocol::decode_list(root.getHolding());
  if (!holding.ok()) return holding.status();
  auto info = root.getInfo();
  AttachRequest request{.holding = *std::move(holding)};
  request.info.id = {info.getId()};
  request.info.name = as_view(info.getName());
  request.info.room = as_view(info.getRoom());
  request.info.cpus_milli = info.getCpusMilli();
  request.info.memory_bytes = info.getMemoryBytes();
  request.info.advertise = info.getAdvertise().cStr();
  request.info.software = info.getSoftware().cStr();
  request.info.machine = info.getMachine().cStr();
  request.info.busy = as_view(info.getBusy());
  request.info.disk_bytes = info.getDiskBytes();
  auto named = protocol::decode(info.getNamed());
  if (!named.ok()) return named.status();
  request.info.named = *std::move(named);
  auto gpus = protocol::decode(info.getGpus());
  if (!gpus.ok()) return gpus.status();
  request.info.gpus = *std::move(gpus);
  return request;
}

Bytes encode_attach_answer(const coordinator::AnswerAttach& answer,
                           const coordinator::CoreConfig& config) {
  capnp::MallocMessageBuilder message;
  auto root = message.initRoot<protocol::WorkerSession::AttachResults>();
  root.setLeaseMs(config.lease_ms);
  root.setHeartbeatMs(config.heartbeat_ms);
  encode_list(root.initStop(answer.stop.size()), to_wire(answer.stop));
  return to_bytes(message);
}

absl::StatusOr<AttachAnswer> decode_attach_answer(const Bytes& bytes) {
  auto message = reader_of(bytes);
  auto root = message.getRoot<protocol::WorkerSession::AttachResults>();
  auto stop = from_wire(root.getStop());
  if (!stop.ok()) return stop.status();
  return AttachAnswer{root.getLeaseMs(), root.getHeartbeatMs(), *std::move(stop)};
}

Bytes encode_report(const worker::SendReport& report, const std::string& busy,
                    const std::vector<Gpu>* gpus) {
  capnp::MallocMessageBuilder message;
  auto root = message.initRoot<protocol::WorkerSession::ReportParams>();
  encode_list(root.initHolding(report.holding.size()), report.holding);
  root.setLastUpdate(report.last_update);
  root.setBusy(as_data(busy));
  if (gpus != nullptr) {
    root.setGpusChanged(true);
    encode_list(root.initGpus(gpus->size()), *gpus);
  }
  auto finished = root.initFinished(report.finished.size());
  for (unsigned i = 0; i < finished.size(); ++i) {
    protocol::encode(finished[i].initKey(), report.finished[i].key);
    protocol::encode(finished[i].initOutcome(), report.finished[i].outcome);
  }
  auto progress = root.initProgress(report.progress.size());
  for (unsigned i = 0; i < progress.size(); ++i) {
    protocol::encode(progress[i].initKey(), report.progress[i].key);
    progress[i].setFraction(report.progress[i].fraction);
    progress[i].setText(as_data(report.progress[i].text));
    progress[i].setTrouble(as_data(report.progress[i].trouble));
  }
  auto ready = root.initReady(report.ready.size());
  for (unsigned i = 0; i < ready.size(); ++i) {
    protocol::encode(ready[i].initKey(), report.ready[i].key);
    ready[i].setMasterPort(report.ready[i].master_port);
  }
  return to_bytes(message);
}

absl::StatusOr<coordinator::WorkerReported> decode_report(const Bytes& bytes) {
  auto message = reader_of(bytes);
  auto root = message.getRoot<protocol::WorkerSession::ReportParams>();
  coordinator::WorkerReported report;
  auto holding = protocol::decode_list(root.getHolding());
  if (!holding.ok()) return holding.status();
  report.holding = *std::move(holding);
  report.last_update = root.getLastUpdate();
  report.busy = as_view(root.getBusy());
  if (root.getGpusChanged()) {
    auto gpus = protocol::decode(root.getGpus());
    if (!gpus.ok()) return gpus.status();
    report.gpus = *std::move(gpus);
  }
  for (auto one : root.getFinished()) {
    auto key = protocol::decode(one.getKey());
    if (!key.ok()) return key.status();
    auto outcome = protocol::decode(one.getOutcome());
    if (!outcome.ok()) return outcome.status();
    report.finished.push_back({*key, *std::move(outcome)});
  }
  for (auto one : root.getProgress()) {
    auto key = protocol::decode(one.getKey());
    if (!key.ok()) return key.status();
    report.progress.push_back({*key, one.getFraction(), std::string(as_view(one.getText())),
                               std::string(as_view(one.getTrouble()))});
  }
  for (auto one : root.getReady()) {
    auto key = protocol::decode(one.getKey());
    if (!key.ok()) return key.status();
    report.ready.push_back({*key, one.getMasterPort()});
  }
  return report;
}

Bytes encode_report_answer(const coordinator::AnswerReport& answer) {
  capnp::MallocMessageBuilder message;
  auto root = message.initRoot<protocol::WorkerSession::ReportResults>();
  encode_list(root.initAcknowledged(answer.acknowledged.size()), answer.acknowledged);
  encode_list(root.initStop(answer.stop.size()), to_wire(answer.stop));
  return to_bytes(message);
}

absl::StatusOr<ReportAnswer> decode_report_answer(const Bytes& bytes) {
  auto message = reader_of(bytes);
  auto root = message.getRoot<protocol::WorkerSession::ReportResults>();
  auto acknowledged = protocol::decode_list(root.getAcknowledged());
  if (!acknowledged.ok()) return acknowledged.status();
  auto stop = from_wire(root.getStop());
  if (!stop.ok()) return stop.status();
  return ReportAnswer{*std::move(acknowledged), *std::move(stop)};
}

Bytes encode_update(const coordinator::SendUpdate& update, std::set<JobId>& sent) {
  capnp::MallocMessageBuilder message;
  auto root = message.initRoot<protocol::WorkerSink::UpdateParams>();
  root.setNumber(update.number);
  auto leases = root.initLeases(update.leases.size());
  for (unsigned i = 0; i < leases.size(); ++i) {
    const auto& lease = update.leases[i];
    protocol::encode(leases[i].initKey(), lease.key);
    protocol::encode(leases[i].initCheckpoint(), lease.checkpoint);
    leases[i].setHold(lease.hold);
    leases[i].setLocalRank(lease.local_rank);
    leases[i].setLocalWorldSize(lease.local_world_size);
    leases[i].setMemoryLimitBytes(lease.memory_limit_bytes);
    auto gpus = leases[i].initGpus(lease.gpus.size());
    for (unsigned g = 0; g < gpus.size(); ++g) gpus.set(g, lease.gpus[g]);
    if (lease.spec == nullptr || !sent.insert(lease.key.job).second) continue;
    protocol::encode(leases[i].initSpec(), *lease.spec);
    leases[i].setHasSpec(true);
  }
  encode_list(root.initStop(update.stop.size()), to_wire(update.stop));
  auto start = root.initStart(update.start.size());
  for (unsigned i = 0; i < start.size(); ++i) {
    protocol::encode(start[i].initKey(), update.start[i].key);
    start[i].setMasterAddr(update.start[i].master_addr);
    start[i].setMasterPort(update.start[i].master_port);
  }
  return to_bytes(message);
}

absl::StatusOr<worker::UpdateReceived> decode_update(const Bytes& bytes, KnownSpecs& known) {
  auto message = reader_of(bytes);
  auto root = message.getRoot<protocol::WorkerSink::UpdateParams>();
  worker::UpdateReceived update;
  update.number = root.getNumber();
  for (auto lease : root.getLeases()) {
    auto key = protocol::decode(lease.getKey());
    if (!key.ok()) return key.status();
    if (lease.getHasSpec()) {
      auto spec = protocol::decode(lease.getSpec());
      if (!spec.ok()) return spec.status();
      known[key->job] = std::make_shared<const JobSpec>(*std::move(spec));
    }
    auto checkpoint = protocol::decode(lease.getCheckpoint());
    if (!checkpoint.ok()) return checkpoint.status();
    update.leases.push_back({*key,
                             known[key->job],
                             *checkpoint,
                             lease.getHold(),
                             lease.getLocalRank(),
                             lease.getLocalWorldSize(),
                             {lease.getMemoryLimitBytes(), {}}});
    for (const auto gpu : lease.getGpus()) {
      update.leases.back().grant.gpus.emplace_back(gpu.cStr());
    }
  }
  for (auto start : root.getStart()) {
    auto key = protocol::decode(start.getKey());
    if (!key.ok()) return key.status();
    update.start.push_back({*key, start.getMasterAddr().cStr(), start.getMasterPort()});
  }
  auto stop = from_wire(root.getStop());
  if (!stop.ok()) return stop.status();
  update.stop = *std::move(stop);
  return update;
}

Bytes encode_checkpoint(const CheckpointOffer& offer) {
  capnp::MallocMessageBuilder message;
  auto root = message.initRoot<protocol::WorkerSession::CheckpointParams>();
  protocol::encode(root.initKey(), offer.key);
  protocol::encode(root.initManifest(), offer.manifest);
  encode_list(root.initChunks(offer.chunks.size()), offer.chunks);
  root.setSavedMs(offer.saved_ms);
  return to_bytes(message);
}

absl::StatusOr<CheckpointOffer> decode_checkpoint(const Bytes& bytes) {
  auto message = reader_of(bytes);
  auto root = message.getRoot<protocol::WorkerSession::CheckpointParams>();
  auto key = protocol::decode(root.getKey());
  if (!key.ok()) return key.status();
  auto manifest = protocol::decode(root.getManifest());
  if (!manifest.ok()) return manifest.status();
  auto chunks = protocol::decode_list(root.getChunks());
  if (!chunks.ok()) return chunks.status();
  return CheckpointOffer{*key, *manifest, *std::move(chunks), root.getSavedMs()};
}

}  // namespace pesc::sim
