// How a status travels: KJ keeps only a type and a text across the wire, so the code's name is the
// text's first words.
#include <kj/debug.h>

#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "rpc/loop.h"

namespace pesc::rpc {
namespace {

using absl::StatusCode;

constexpr std::array<std::pair<StatusCode, std::string_view>, 16> kNames{{
    {StatusCode::kInvalidArgument, "invalid argument"},
    {StatusCode::kNotFound, "not found"},
    {StatusCode::kUnauthenticated, "unauthenticated"},
    {StatusCode::kPermissionDenied, "permission denied"},
    {StatusCode::kFailedPrecondition, "failed precondition"},
    {StatusCode::kResourceExhausted, "resource exhausted"},
    {StatusCode::kUnavailable, "unavailable"},
    {StatusCode::kAlreadyExists, "already exists"},
    {StatusCode::kAborted, "aborted"},
    {StatusCode::kDataLoss, "data loss"},
    {StatusCode::kDeadlineExceeded, "deadline exceeded"},
    {StatusCode::kOutOfRange, "out of range"},
    {StatusCode::kCancelled, "cancelled"},
    {StatusCode::kUnimplemented, "unimplemented"},
    {StatusCode::kInternal, "internal"},
    {StatusCode::kUnknown, "unknown"},
}};

// A refusal is no FAILED of KJ's when trying again may help: proxies and KJ's own retries look at
// the type. DISCONNECTED is never used: it would say that the capability is broken.
kj::Exception::Type type_of(StatusCode code) {
  return code == StatusCode::kResourceExhausted || code == StatusCode::kUnavailable
             ? kj::Exception::Type::OVERLOADED
             : kj::Exception::Type::FAILED;
}

}  // namespace

kj::Exception to_exception(const absl::Status& status) {
  std::string text = "internal";
  for (const auto& [code, name] : kNames) {
    if (code == status.code()) text = name;
  }
  text.append(": ").append(status.message().data(), status.message().size());
  return kj::Exception(type_of(status.code()), __FILE__, __LINE__,
                       kj::heapString(text.data(), text.size()));
}

absl::Status to_status(const kj::Exception& exception) {
  std::string_view text(exception.getDescription().begin(), exception.getDescription().size());
  constexpr std::string_view remote = "remote exception: ";
  // One for each hop that it came over.
  while (text.substr(0, remote.size()) == remote) text.remove_prefix(remote.size());

  for (const auto& [code, name] : kNames) {
    if (text.size() >= name.size() + 2 && text.substr(0, name.size()) == name &&
        text.substr(name.size(), 2) == ": ") {
      return absl::Status(code, std::string(text.substr(name.size() + 2)));
    }
  }
  switch (exception.getType()) {
    case kj::Exception::Type::DISCONNECTED:
      return absl::UnavailableError("the connection was lost (" + std::string(text) + ")");
    case kj::Exception::Type::UNIMPLEMENTED:
      return absl::FailedPreconditionError(
          "the other side does not know this call (" + std::string(text) +
          "): the versions differ, install the same version of PESC on both");
    case kj::Exception::Type::OVERLOADED:
      return absl::ResourceExhaustedError(std::string(text));
    case kj::Exception::Type::FAILED:
      break;
  }
  return absl::InternalError(std::string(text));
}

void throw_if_error(const absl::Status& status) {
  if (!status.ok()) kj::throwFatalException(to_exception(status));
}

}  // namespace pesc::rpc
