"""Fingerprints as words that two people compare over the telephone.

Role: a byte of a stretched digest for each of 256 words. They are short and common, and no two of them are alike
without their diacritics either: a terminal that cannot show those takes nothing away.
Reach: the standard library. Invariant: the list is never changed; two versions of the software must say the same words.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import scrypt

WORDS_SHOWN = 8

LIST = """
mèo chó gà vịt bò trâu ngựa dê lợn cá tôm cua ốc ếch rắn rùa hổ voi khỉ gấu sóc thỏ chim cò cú quạ ong bướm kiến
muỗi ruồi tằm sên giun nai cáo sói chuột dơi mực hoa lá cây rễ cành xoài ổi mít cam chanh bưởi dừa chuối táo lê nho
na mận đào khế me bầu bí mướp ngô khoai sắn lúa gạo thóc đậu lạc vừng hành tỏi gừng ớt nghệ tre trúc thông mía chè
rau nấm mơ cơm phở bún bánh xôi cháo thịt trứng sữa đường mắm kẹo kem rượu bia nước nem giò nhà tường mái bếp bàn
ghế giường tủ đèn quạt nồi bát đĩa thìa cốc chén ấm búa đinh thang dây kim chỉ vải áo quần mũ giày dép túi khăn
gương lược chổi xô gối chăn chiếu sách bút thước bảng vở trống chuông đàn kèn khóa hộp thùng bình lọ rổ nón gậy xẻng
cuốc liềm lưới núi sông suối biển rừng đất đá cát trời trăng sao mây mưa nắng sấm chớp bão tuyết sương khói than
vàng bạc đồng sắt thép hang thác vịnh cầu ruộng vườn làng chùa tháp tóc mắt mũi tai miệng răng tay ngón bụng lưng
tim phổi xe tàu thuyền bè đò phà lốp phanh xanh nâu hồng một hai ba bốn sáu bảy chín trăm nghìn đi chạy nhảy bơi ăn
uống ngủ học viết đọc cười khóc hát vẽ xem yêu thương giúp gửi nhận biết hiểu làm thầy lính vua
"""

WORDS = tuple(LIST.split())
"""In this order: the first stands for the byte 0."""


SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 15, 8, 1
"""Eight words are 64 bits: whoever wants other bytes with the same words has to stretch each of his tries."""


@lru_cache(maxsize=16)
def words_of(digest: bytes) -> tuple[str, ...]:
    """The words of a digest. Takes a tenth of a second."""
    memory = 256 * SCRYPT_N * SCRYPT_R
    found = scrypt(digest, salt=b"dongbo/words/1", n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P, maxmem=memory, dklen=WORDS_SHOWN)
    return tuple(WORDS[each] for each in found)
