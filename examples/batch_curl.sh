#!/usr/bin/env bash
# A batch by curl: upload, create, poll, download. Python reads the JSON; nothing else is needed.
#
#     export OPENAI_BASE_URL=https://nightrate.example.com/v1 OPENAI_API_KEY=sk-nr-...
#     examples/batch_curl.sh examples/chat.jsonl answers.jsonl
set -euo pipefail

requests=${1:?a file of requests}
answers=${2:?where the answers go}
: "${OPENAI_BASE_URL:?such as https://nightrate.example.com/v1}" "${OPENAI_API_KEY:?an API key}"

# The key comes from a file descriptor: arguments are visible to others on the machine.
call() {
    curl --silent --show-error --fail-with-body --retry 5 \
        --config <(printf 'header = "Authorization: Bearer %s"\n' "$OPENAI_API_KEY") "$@"
}

# field NAME: a field of the JSON document on stdin; nothing where it is null.
field() {
    python3 -c 'import json, sys; value = json.load(sys.stdin)[sys.argv[1]]; print("" if value is None else value)' "$1"
}

endpoint=$(head -n 1 "$requests" | field url)
file_id=$(call "$OPENAI_BASE_URL/files" --form purpose=batch --form "file=@$requests;filename=requests.jsonl" | field id)

# Under the same key a second try, by --retry or by hand, returns the batch that the first one made.
batch=$(call "$OPENAI_BASE_URL/batches" --header 'Content-Type: application/json' \
    --header "Idempotency-Key: batch-of-$file_id" \
    --data "{\"input_file_id\": \"$file_id\", \"endpoint\": \"$endpoint\", \"completion_window\": \"24h\"}")
batch_id=$(field id <<<"$batch")

while status=$(field status <<<"$batch"); do
    echo "$batch_id $status" >&2
    case $status in
        completed | failed | expired | cancelled) break ;;
    esac
    sleep "${POLL_SECONDS:-10}"
    batch=$(call "$OPENAI_BASE_URL/batches/$batch_id")
done

output_file_id=$(field output_file_id <<<"$batch")
error_file_id=$(field error_file_id <<<"$batch")
# Large results lie in the object store: --location follows there, and curl leaves the key behind.
if [[ -n $output_file_id ]]; then
    call --location "$OPENAI_BASE_URL/files/$output_file_id/content" --output "$answers"
fi
if [[ -n $error_file_id ]]; then
    call --location "$OPENAI_BASE_URL/files/$error_file_id/content" >&2
fi
[[ $status == completed && -z $error_file_id ]]
