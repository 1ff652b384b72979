# tshark's word on a play. Sourced by wireshark.sh.

# What Wireshark 4.0 has no name for, line by line as it writes it; nothing else is excused.
NAMELESS=(
    'Exchange type: Unknown (43)'                                  # IKE_INTERMEDIATE (RFC 9242)
    'Exchange type: Unknown (44)'                                  # IKE_FOLLOWUP_KE (RFC 9370)
    'Transform Type: Reserved to IANA (6)'                         # additional key exchange 1 (RFC 9370)
    'DH Group #: Unknown (36)'                                     # ML-KEM-768
    'Notify Message Type: RESERVED TO IANA - STATUS TYPES (16435)' # USE_PPK (RFC 8784)
    'Notify Message Type: RESERVED TO IANA - STATUS TYPES (16436)' # PPK_IDENTITY (RFC 8784)
    'Notify Message Type: RESERVED TO IANA - STATUS TYPES (16437)' # NO_PPK_AUTH (RFC 8784)
    'Notify Message Type: RESERVED TO IANA - STATUS TYPES (16438)' # INTERMEDIATE_EXCHANGE_SUPPORTED (RFC 9242)
    'Notify Message Type: RESERVED TO IANA - STATUS TYPES (16441)' # ADDITIONAL_KEY_EXCHANGE (RFC 9370)
    'Notify Message Type: RESERVED TO IANA - STATUS TYPES (16443)' # SUPPORTED_AUTH_METHODS (RFC 9593)
    'Notify Message Type: Private Use - STATUS TYPES (47387)'      # Warren's own (docs/ARCHITECTURE.md)
    'Notify Message Type: Private Use - STATUS TYPES (47388)'      # Warren's own (docs/performance.md)
)
# Above each notify without a name tshark writes its class alone.
CLASSES='Private Use - STATUS TYPES|RESERVED TO IANA - STATUS TYPES'

# A configuration of its own, so that none of this machine's counts.
judge() {
    XDG_CONFIG_HOME=$work/$play HOME=$work/$play tshark -n -r "$(capture "$play")" -o ip.check_checksum:TRUE \
        -o esp.enable_encryption_decode:TRUE -o esp.enable_authentication_check:TRUE -o esp.do_esp_sequence_analysis:FALSE \
        "$@" 2>>"$work/stderr" || die "$(cat "$work/stderr")"
}

# none WHAT FILTER…: no frame is any of these.
none() {
    local filters all what n
    filters=("$@")
    all="(${filters[1]})"
    for ((n = 3; n < ${#filters[@]}; n += 2)); do all+=" or (${filters[n]})"; done
    judge -Y "$all" >"$work/found"
    [ -s "$work/found" ] || return 0
    for ((n = 0; n < ${#filters[@]}; n += 2)); do
        what=$(judge -Y "${filters[n + 1]}")
        [ -z "$what" ] || printf 'frames that are %s:\n%s\n' "${filters[n]}" "$what" >&2
    done
    die "$play is not as it should be"
}

# some WHAT AT-LEAST FILTER
some() {
    local found
    found=$(judge -Y "$3" | wc -l)
    [ "$found" -ge "$2" ] || die "$play: $1: $found frames, not $2"
    printf '%5d  %s\n' "$found" "$1"
}

# Each SA counts from 1, no number twice and none left out (RFC 4303 2.2). tshark would want them in order as well, which nobody
# promises: packets that waited for the SA and the first ones that did not are sent by two threads.
sequence_numbers() {
    judge -Y esp -T fields -E separator=/s -e esp.spi -e esp.sequence |
        awk '{ if (seen[$1, $2]++) { print $1, $2, "twice"; bad = 1 }; count[$1]++; if ($2 + 0 > most[$1]) most[$1] = $2 + 0 }
            END { for (spi in count) if (count[spi] != most[spi]) { print spi, most[spi], "by", count[spi], "packets"; bad = 1 }; exit bad }' >&2 ||
        die "$play: sequence numbers of ESP"
}

# verdict PLAY TITLE: on everything that holds for every frame.
verdict() {
    play=$1
    : >"$work/stderr"
    judge -T fields -e frame.number -e _ws.col.Protocol -e _ws.col.Info >"$work/frames"
    judge -O isakmp,esp >"$work/text"
    echo "$2: $(wc -l <"$work/frames") frames"

    none "malformed" '_ws.malformed' \
        "complained about" '_ws.expert.severity >= "Warning"' \
        "neither IKE nor ESP" 'not isakmp and not esp' \
        "fragments of IP" 'ip.flags.mf == 1 or ip.frag_offset > 0 or ipv6.fraghdr' \
        "IKE and not decrypted" 'isakmp.typepayload in {46, 53} and not isakmp.enc.decrypted' \
        "ESP and not decrypted" 'esp and not esp.decrypted_data' \
        "ESP with a wrong ICV" 'esp.icv_bad == 1'
    sequence_numbers
    unknown
    if grep 'Integrity Checksum Data' "$work/text" | grep -v '\[correct\]' >&2; then
        die "$play: IKE messages with a wrong ICV"
    fi
    # Of tables that it cannot read tshark tells on standard error only.
    if grep -v '^Running as user' "$work/stderr" >&2; then die "tshark complains"; fi
}

# Every line that says of something that it is unknown or wrong is one of the known ones.
unknown() {
    local known=() line
    for line in "${NAMELESS[@]}"; do known+=(-e "$line"); done
    if grep -iE 'unknown|unassigned|to iana|private use|\[incorrect|\[invalid' "$work/text" |
        grep -vF "${known[@]}" | grep -vE "Payload: Notify \(41\) - ($CLASSES)\$" >&2; then
        die "$play: tshark does not know this, or finds it wrong"
    fi
}
