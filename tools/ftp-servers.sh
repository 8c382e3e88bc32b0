#!/usr/bin/env bash
# Unpacks vsftpd, ProFTPD with its TLS module, pure-ftpd, OpenSSH's server and lftp from Debian's
# packages into a folder, for the tests of the FTP plugin. Some packages exclude each other, so they
# are not installed. The script needs apt-get and dpkg, but no root rights. It does nothing if the
# folder has all of them.
#
#   tools/ftp-servers.sh [--peers] [FOLDER]
#
#   --peers  also unpack rclone and curl, for the benchmark `ftp`
#   FOLDER   default: $POLLING_TEST_FTP_SERVERS, or .cache/ftp-servers
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

packages=(vsftpd proftpd-core proftpd-mod-crypto pure-ftpd openssh-server openssh-sftp-server lftp)
complete=complete
if [ "${1:-}" = --peers ]; then
  shift
  complete=complete-peers
  packages+=(rclone)
  command -v curl >/dev/null || packages+=(curl)
fi
folder=${1:-${POLLING_TEST_FTP_SERVERS:-.cache/ftp-servers}}

if [ "$(cat "$folder/$complete" 2>/dev/null)" = "${packages[*]}" ]; then
  exit 0
fi
mkdir -p "$folder/packages"
if ! apt-cache show vsftpd >/dev/null 2>&1; then
  apt-get update -qq || sudo -n apt-get update -qq
fi
libraries=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
  --no-replaces --no-enhances "${packages[@]}" |
  awk '$1 == "Depends:" && $2 ~ /^lib(wrap|pam|selinux|audit|cap-ng|gssapi|krb5|k5crypto|com-err|keyutils|nsl|tirpc|hiredis|memcached|hashkit|pcre2|sodium|idn2|cap2|curl4|nghttp|rtmp|ssh2|psl|brotli)/ \
    {print $2}' | sort -u)
(
  cd "$folder/packages"
  # shellcheck disable=SC2086  # one argument for each library
  apt-get download -qq "${packages[@]}" $libraries
)
for package in "$folder"/packages/*.deb; do
  dpkg -x "$package" "$folder"
done
for mark in complete "$complete"; do
  rm -f "$folder/$mark" # it may be a link to another tree's
  echo "${packages[*]}" >"$folder/$mark"
done
