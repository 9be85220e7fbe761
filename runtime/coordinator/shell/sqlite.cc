#include "runtime/coordinator/shell/sqlite.h"

#include <cerrno>
#include <cstring>

namespace pesc::coordinator {

namespace {

int last_errno(sqlite3_file* file) {
  int error = 0;
  if (file != nullptr && file->pMethods != nullptr) {
    file->pMethods->xFileControl(file, SQLITE_FCNTL_LAST_ERRNO, &error);
  }
  return error;
}

// SQLite calls a disk full for ENOSPC only, and sqlite3_system_errno() may tell of a later call.
int system_errno(sqlite3* db) {
  sqlite3_file* wal = nullptr;
  sqlite3_file* main = nullptr;
  sqlite3_file_control(db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &wal);
  sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, &main);
  if (const int error = last_errno(wal)) return error;
  if (const int error = last_errno(main)) return error;
  return sqlite3_system_errno(db);
}

}  // namespace

absl::Status sqlite_status(sqlite3* db, int code, std::string_view doing) {
  std::string message(doing);
  message += ": ";
  message += db != nullptr ? sqlite3_errmsg(db) : sqlite3_errstr(code);
  const bool io = (code & 0xff) == SQLITE_IOERR || (code & 0xff) == SQLITE_CANTOPEN;
  const int system = io && db != nullptr ? system_errno(db) : 0;
  if (io && system != 0) message += std::string(" (") + std::strerror(system) + ")";
  if ((code & 0xff) == SQLITE_FULL ||
      (io && (system == ENOSPC || system == EDQUOT || system == EFBIG))) {
    return absl::ResourceExhaustedError(message);
  }
  if ((code & 0xff) == SQLITE_CORRUPT || (code & 0xff) == SQLITE_NOTADB) {
    return absl::DataLossError(message);
  }
  return absl::UnavailableError(message);
}

absl::StatusOr<Statement> Statement::prepare(sqlite3* db, const char* sql) {
  sqlite3_stmt* raw = nullptr;
  const int code = sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &raw, nullptr);
  if (code != SQLITE_OK) return sqlite_status(db, code, sql);
  Statement statement;
  statement.statement_.reset(raw);
  return statement;
}

void Statement::bind_bytes(int index, std::string_view bytes) {
  // A null pointer would bind NULL, and an empty value is not that.
  sqlite3_bind_blob64(get(), index, bytes.empty() ? "" : bytes.data(), bytes.size(), SQLITE_STATIC);
}

absl::StatusOr<bool> Statement::next() {
  const int code = sqlite3_step(get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  absl::Status status = sqlite_status(
      sqlite3_db_handle(get()), sqlite3_extended_errcode(sqlite3_db_handle(get())), "journal.db");
  reset();
  return status;
}

absl::Status Statement::run() {
  absl::StatusOr<bool> row = next();
  if (row.ok()) reset();
  return row.status();
}

std::string_view Statement::bytes(int column) const {
  const auto* data = static_cast<const char*>(sqlite3_column_blob(get(), column));
  if (data == nullptr) return {};
  return {data, static_cast<size_t>(sqlite3_column_bytes(get(), column))};
}

absl::StatusOr<Database> Database::open(const std::filesystem::path& path, bool read_only,
                                        const std::string& vfs) {
  sqlite3* raw = nullptr;
  // Read connections are opened read-write too: a read-only one may not make the -shm file.
  const int flags =
      SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | (read_only ? 0 : SQLITE_OPEN_CREATE);
  const int code = sqlite3_open_v2(path.c_str(), &raw, flags, vfs.empty() ? nullptr : vfs.c_str());
  Database database;
  database.db_.reset(raw);
  if (code != SQLITE_OK) return sqlite_status(raw, code, "cannot open " + path.string());
  sqlite3_extended_result_codes(raw, 1);
  sqlite3_busy_timeout(raw, 10'000);
  if (read_only) {
    if (absl::Status status = database.execute("PRAGMA query_only=1"); !status.ok()) return status;
  }
  return database;
}

absl::Status Database::execute(const char* sql) {
  const int code = sqlite3_exec(get(), sql, nullptr, nullptr, nullptr);
  if (code == SQLITE_OK) return absl::OkStatus();
  return sqlite_status(get(), sqlite3_extended_errcode(get()), "journal.db");
}

absl::StatusOr<int64_t> Database::query_integer(const char* sql) {
  absl::StatusOr<Statement> statement = Statement::prepare(get(), sql);
  if (!statement.ok()) return statement.status();
  absl::StatusOr<bool> row = statement->next();
  if (!row.ok()) return row.status();
  return *row ? statement->integer(0) : 0;
}

absl::StatusOr<std::string> Database::query_text(const char* sql) {
  absl::StatusOr<Statement> statement = Statement::prepare(get(), sql);
  if (!statement.ok()) return statement.status();
  std::string text;
  while (true) {
    absl::StatusOr<bool> row = statement->next();
    if (!row.ok()) return row.status();
    if (!*row) return text;
    if (!text.empty()) text += '\n';
    text += statement->bytes(0);
  }
}

}  // namespace pesc::coordinator
