//! Explicit congestion notification through a tunnel (RFC 6040).

const MASK: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const CE: u8 = 0b11;

/// The outer TOS of a tunnel packet: DSCP and ECN are the inner packet's (RFC 4301 5.1.2, RFC 6040 4.1, normal mode).
pub fn encapsulate(inner_tos: u8) -> u8 {
    inner_tos
}

/// The TOS of the inner packet after the tunnel; its DSCP stays (RFC 6040 4.2, figure 4).
///
/// `None`: congestion was marked on a packet whose sender would not see it, so it must be dropped.
pub fn decapsulate(inner_tos: u8, outer_tos: u8) -> Option<u8> {
    let ecn = match (inner_tos & MASK, outer_tos & MASK) {
        (NOT_ECT, CE) => return None,
        (NOT_ECT, _) => NOT_ECT,
        (_, CE) => CE,
        (inner, ECT_1) if inner != CE => ECT_1,
        (inner, _) => inner,
    };
    Some(inner_tos & !MASK | ecn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_of_rfc_6040() {
        const ECT_0: u8 = 0b10;
        let outer = [NOT_ECT, ECT_0, ECT_1, CE];
        let table = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ];
        for (inner, row) in table {
            for (outer, expected) in outer.into_iter().zip(row) {
                let got = decapsulate(0xb8 | inner, outer);
                assert_eq!(got, expected.map(|ecn| 0xb8 | ecn), "{inner} {outer}");
            }
        }
    }
}
